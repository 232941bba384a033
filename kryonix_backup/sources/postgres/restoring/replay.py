"""A part of a chain, replayed into a database that was loaded from a snapshot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from kryonix_backup.errors import Damaged, RestoreError
from kryonix_backup.model import MIB, Problem
from kryonix_backup.sources.postgres.decoding import pgoutput, sample
from kryonix_backup.sources.postgres.decoding.latest import ROW_AT, Latest, new_latest, takers
from kryonix_backup.sources.postgres.decoding.message import (
    PREFIX,
    Beat,
    Ddl,
    Sequence,
    parse,
    told,
)
from kryonix_backup.sources.postgres.decoding.pgoutput import Begin, Relation
from kryonix_backup.sources.postgres.restoring.applying import Applier, bulk_of
from kryonix_backup.sources.postgres.restoring.guarding import Hush
from kryonix_backup.sources.postgres.restoring.objects import Objects, Sampled
from kryonix_backup.sources.postgres.restoring.repeating import repeat
from kryonix_backup.sources.postgres.server.address import SCHEMA, Address
from kryonix_backup.sources.postgres.server.session import connected
from kryonix_backup.sources.source import Log

log = logging.getLogger(__name__)

_MOST_KEYS = 300_000  # folded in memory, about 100 MB, while as many more are applied
_MOST_BYTES = 128 * MIB  # of messages, which may be held whole
_LOOK_EVERY = 4096
_IS_THERE = """
select from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = %s and c.relname = %s
"""
_OID = _IS_THERE.replace("select", "select c.oid::int8", 1)
_SESSION = "-c session_replication_role=replica -c synchronous_commit=off -c work_mem=64MB"


class Replayed(NamedTuple):
    """
    What was replayed: ``last`` is the time of the last commit in it.

    ``sequences`` are as they were at a moment not before that; None where no beat came.
    ``ddl`` counts the changes of the schema that were repeated, and ``views`` are the oids of
    materialized views that are to be filled once everything is there. ``objects`` are the large
    objects that there are by now, and ``problems`` what could not be brought back of them.
    """

    commits: int
    changes: int
    last: datetime | None
    sequences: tuple[Sequence, ...] | None
    ddl: int
    views: tuple[int, ...]
    objects: Objects
    problems: tuple[Problem, ...]


class Hooks(NamedTuple):
    """
    What a replay waits for: ``loaded`` returns once the snapshot's rows are there.

    ``before_ddl`` is called once, before the first change of the schema.
    """

    loaded: Callable[[], object]
    before_ddl: Callable[[], None]


def replay(
    changes: Log,
    address: Address,
    hooks: Hooks,
    objects: Objects,
    left_out: frozenset[int] = frozenset(),
) -> Replayed:
    """
    Apply everything that was committed after the snapshot, up to the moment that is wanted.

    The first commit later than that moment ends it: times of commits are not in order, and this is
    PostgreSQL's own rule. The log is folded while the snapshot's rows are still on their way.
    Rows of tables whose oids, in this database, are ``left_out`` are passed over; ``objects`` are
    the large objects that were loaded.
    Raises ValidationFailed where the log does not fit the database, RestoreError where a change
    of the schema cannot be repeated, Damaged.
    """
    with (
        connected(address, options=_SESSION) as connection,
        Applier(connection, hooks.loaded) as applier,
    ):
        return _Replay(changes, address, applier, hooks, objects, left_out).run()


class _Replay:
    """One replay under way."""

    def __init__(
        self,
        changes: Log,
        address: Address,
        applier: Applier,
        hooks: Hooks,
        objects: Objects,
        left_out: frozenset[int],
    ) -> None:
        self._sampled = Sampled(applier, objects, changes.until)
        self._whole: Mapping[str, Any] | None = None
        self._log = changes
        self._address = address
        self._applier = applier
        self._connection = applier.connection
        self._hush = Hush(applier.connection)
        self._before_ddl = hooks.before_ddl
        self._most = _MOST_KEYS
        self._left_out = left_out
        self._relations: dict[int, Relation] = {}
        self._tables: dict[int, Latest] = {}
        self._plain: dict[bytes, Callable[[bytes], None]] = {}
        # Tables whose rows are passed over: whether changes of the schema are told there.
        self._ours: dict[int, bool] = {}
        self._until = pgoutput.micros_of(changes.until)
        self._begin: Begin | None = None
        self._wanted = False
        self._stopped = False
        self._reached = changes.after  # everything committed before this is in the database
        self._beat: Beat | None = None
        self._commits = self._changes = self._ddl = 0
        self._last: Begin | None = None
        self._views: set[int] = set()
        self._there: set[int] = set()  # tables that the database is known to have
        self._rows = {ord("I"): self._insert, ord("U"): self._update, ord("D"): self._delete}
        self._bytes = self._unlooked = 0
        self._others = {
            ord("B"): self._on_begin,
            ord("C"): self._on_commit,
            ord("R"): self._on_relation,
            ord("T"): self._on_truncate,
            ord("M"): self._on_message,
            ord("O"): self._pass,
            ord("Y"): self._pass,
            sample.KIND: self._on_sample,
        }

    def run(self) -> Replayed:
        for header, pieces in self._log.segments:
            self._whole = header.meta.get(sample.MARK)
            self._take_all(pgoutput.frames(pieces))
            if self._stopped and self._beat_is_late():
                break
        self._flush()
        self._applier.settle()
        self._hush.close()
        sequences = self._beat.sequences if self._beat is not None else None
        views = tuple(sorted(self._views))
        last = None if self._last is None else self._last.time
        return Replayed(
            self._commits,
            self._changes,
            last,
            sequences,
            self._ddl,
            views,
            self._sampled.objects,
            self._sampled.problems,
        )

    def _take_all(self, messages: Iterable[bytes]) -> None:
        """Most messages are rows of a plain kind, which need only these few steps."""
        find = self._plain.get
        taken = size = 0
        for message in messages:
            take = find(message[:ROW_AT])
            if take is None:
                self._take(message)
            elif self._wanted:
                take(message[ROW_AT:])
                size += len(message)
                taken += 1
                if taken == _LOOK_EVERY:
                    self._count(taken, size)
                    taken = size = 0
        self._count(taken, size)

    def _take(self, message: bytes) -> None:
        kind = message[0]
        row = self._rows.get(kind)
        if row is not None:
            if self._wanted:
                row(message)
                self._count(1, len(message))
            return
        other = self._others.get(kind)
        if other is None:
            raise Damaged(f"the transaction log holds a message of the unknown kind {kind}")
        other(message)

    # ------------------------------------------------------------------ rows

    def _table(self, oid: int) -> Latest:
        table = self._tables.get(oid)
        if table is None:
            table = self._tables[oid] = new_latest(oid, self._relations)
            self._plain |= takers(oid, table)
        return table

    def _insert(self, message: bytes) -> None:
        change = pgoutput.insert(message)
        assert change.new is not None
        if change.oid in self._ours:
            if self._ours[change.oid]:
                self._repeat(told(change.new))
            return
        self._table(change.oid).insert(message[ROW_AT:])

    def _update(self, message: bytes) -> None:
        change = pgoutput.update(message)
        if change.oid not in self._ours:
            self._table(change.oid).change(change.old, change.new)

    def _delete(self, message: bytes) -> None:
        change = pgoutput.delete(message)
        if change.oid not in self._ours:
            self._table(change.oid).change(change.old, None)

    def _count(self, taken: int, size: int) -> None:
        self._changes += taken
        self._bytes += size
        self._unlooked += taken
        if self._unlooked >= _LOOK_EVERY or self._bytes >= _MOST_BYTES:
            self._unlooked = 0
            if self._bytes >= _MOST_BYTES or self._held() >= self._most:
                self._flush(early=True)

    def _held(self) -> int:
        return sum(len(table) for table in self._tables.values())

    def _flush(self, *, early: bool = False) -> None:
        """
        Apply what was folded; a transaction may come in several parts, which nobody sees.

        The rows of CREATE TABLE AS stand before the statement itself: ``early`` keeps them.
        """
        changed = {oid: each for oid, each in self._tables.items() if each.is_changed}
        kept = [oid for oid, each in changed.items() if early and not self._is_there(each.relation)]
        self._tables = {oid: changed.pop(oid) for oid in kept}
        self._plain.clear()
        for oid, each in self._tables.items():
            self._plain |= takers(oid, each)
        self._bytes = 0
        if changed:
            self._applier.add([bulk_of(each) for each in changed.values()])

    def _is_there(self, relation: Relation) -> bool:
        if relation.oid in self._there:
            return True
        self._applier.wait()
        row = self._connection.execute(_IS_THERE, (relation.schema, relation.name)).fetchone()
        if row is not None:
            self._there.add(relation.oid)
        return row is not None

    # ------------------------------------------------------------------ everything else

    def _pass(self, message: bytes) -> None:
        """Origins and types say nothing that is needed here."""

    def _on_sample(self, message: bytes) -> None:
        """What was sampled after the first commit that is too late is too late as well."""
        self._sampled.take(message, None if self._stopped else self._whole)

    def _on_begin(self, message: bytes) -> None:
        self._begin = began = pgoutput.begin(message)
        fresh = began.lsn >= self._reached
        if fresh and began.micros > self._until:
            self._stopped = True
        self._wanted = fresh and not self._stopped

    def _on_commit(self, message: bytes) -> None:
        assert self._begin is not None
        if self._wanted:
            self._commits += 1
            self._last = self._begin
            self._reached = self._begin.lsn + 1
        self._wanted = False

    def _on_relation(self, message: bytes) -> None:
        relation = pgoutput.relation(message)
        known = self._relations.get(relation.oid)
        if known is not None and known != relation and relation.oid in self._tables:
            self._flush()  # what came before was of the table as it was
        self._relations[relation.oid] = relation
        if relation.schema == SCHEMA:
            self._ours[relation.oid] = relation.name == "told"
        elif self._left_out:
            self._leave_out(relation)

    def _leave_out(self, relation: Relation) -> None:
        """By the table that has this name by now: it may have got another one."""
        self._applier.wait()
        row = self._connection.execute(_OID, (relation.schema, relation.name)).fetchone()
        self._ours.pop(relation.oid, None)
        if row is not None and row[0] in self._left_out:
            self._ours[relation.oid] = False

    def _on_truncate(self, message: bytes) -> None:
        if not self._wanted:
            return
        self._changes += 1
        for oid in pgoutput.truncated(message):
            if oid not in self._ours:
                self._table(oid).truncate()

    def _on_message(self, message: bytes) -> None:
        prefix, content = pgoutput.logical(message)
        if prefix != PREFIX:
            return
        said = parse(content)
        if isinstance(said, Beat):
            if not self._beat_is_late():
                self._beat = said
        elif self._wanted:
            raise self._unrepeatable(said.opaque or "it was not written by our trigger")

    def _beat_is_late(self) -> bool:
        """Whether the beat that is kept has seen all that is replayed, and nothing follows."""
        return self._stopped and self._beat is not None and self._beat.before >= self._reached

    def _repeat(self, ddl: Ddl) -> None:
        if ddl.opaque:
            raise self._unrepeatable(ddl.opaque)
        self._flush(early=True)
        self._applier.settle()
        self._there.clear()
        if not self._ddl:
            self._before_ddl()
            self._hush.begin()
        self._ddl += 1
        view = repeat(self._connection, self._address, ddl, self._hush)
        if view is not None:
            self._views.add(view)

    def _unrepeatable(self, reason: str) -> RestoreError:
        return RestoreError(
            f"{self._address.shown}: a change of the schema cannot be repeated: {reason}",
            "Restore to a moment before it, or to one after the next full backup.",
        )
