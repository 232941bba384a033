"""
A PostgreSQL database as the target of a restore.

It is loaded under another name beside the one that is there, and the two change names in one
transaction; until `finish` the old one stays.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from psycopg import sql

from kryonix_backup.errors import (
    RestoreError,
    SourceError,
    TargetFull,
    ValidationFailed,
    WouldOverwrite,
)
from kryonix_backup.model import Blob, Entry, Problem, RestoreId
from kryonix_backup.sources.postgres.decoding.sample import MARK
from kryonix_backup.sources.postgres.dumping import paths
from kryonix_backup.sources.postgres.restoring.archive import Archive
from kryonix_backup.sources.postgres.restoring.guarding import Hush, clear_room, make_room, shut
from kryonix_backup.sources.postgres.restoring.loading import Loaded, load_rows
from kryonix_backup.sources.postgres.restoring.making import (
    described,
    dress_database,
    give_rights,
    make_database,
    make_roles,
    run_all,
)
from kryonix_backup.sources.postgres.restoring.objects import loaded_objects, tell_of_objects
from kryonix_backup.sources.postgres.restoring.replay import Hooks, Replayed, replay
from kryonix_backup.sources.postgres.restoring.sequencing import lead_columns, set_sequences
from kryonix_backup.sources.postgres.restoring.switch import Switch
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.programs import programs_for
from kryonix_backup.sources.postgres.server.session import Connection, connected
from kryonix_backup.sources.postgres.server.timescale import AWAKE, check_timescale, rest, wake
from kryonix_backup.sources.source import FOLDED, Content, LoadReport

log = logging.getLogger(__name__)

_MOST_JOBS = 4
_SHORT_TURN_S = 0.0002
_USUAL_TURN_S = sys.getswitchinterval()
_UNFILLED = """
select n.nspname, c.relname, c.oid = any(%s::oid[])
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'm' and not c.relispopulated
"""
_IS_TABLE = """
select from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = %s and c.relname = %s and c.relkind = 'r'
"""
_TABLES = """
select c.oid::int8, n.nspname, c.relname
from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind = 'r'
"""


class _Saved(NamedTuple):
    """
    The small entries with their content, and what stands for rows and large objects.

    With that, whether the rows of all tables are there, and of when the large objects are.
    """

    small: dict[bytes, bytes]
    rows: list[Entry]
    whole: bool
    mark: Mapping[str, Any] | None


class PostgresTarget:
    """The database of an address, brought back beside what is there and then put in its place."""

    def __init__(self, url: str, restore: RestoreId, *, overwrite: bool = False) -> None:
        self._address = Address.parse(url)
        self._switch = Switch(self._address, restore)
        self._overwrite = overwrite
        self._jobs = min(_MOST_JOBS, len(os.sched_getaffinity(0)))

    def prepare(self, entries: Iterable[Entry], bytes_needed: int) -> None:
        """Raise WouldOverwrite, RestoreError or SourceError where the load cannot work."""
        ranges = 0
        schema: Entry | None = None
        for entry in entries:
            ranges += entry.path.startswith(paths.DATA)
            schema = entry if entry.path == paths.SCHEMA_DUMP else schema
        if schema is None:
            raise RestoreError(
                f"{self._address.shown}: what is to be restored is no PostgreSQL database",
                "Give this source a target of its own kind with --to.",
            )
        with self._switch.connected() as connection:
            self._check_rights(connection)
            self._check_version(connection, schema)
            check_timescale(connection, self._address, schema.meta.get("timescaledb"))
            if not self._switch.is_there(connection, self._address.database):
                return
            self._check_template(connection)
        self._check_overwrite(whole=ranges == schema.meta["ranges"])

    def load(self, content: Content) -> LoadReport:
        """Make the new database and fill it; what an earlier try left is dropped first."""
        new = self._switch.new
        with self._refused(), self._switch.connected() as connection:
            saved = _sorted(content)
            small = saved.small
            version = connection.info.server_version // 10_000
            self._switch.drop(connection, new)
            roles, database = described(small)
            problems = make_roles(connection, roles)
            make_database(connection, new, database)
            problems += give_rights(connection, new, database)
            self._switch.mark(connection, "loading")
            address = self._address.of(new)
            with Archive(programs_for(version), [small[paths.SCHEMA_DUMP]]) as archive:
                _make(archive, address, database.get("timescaledb"))
                with connected(address) as inside:
                    opened = make_room(inside)
                    # Before the log, which may make one anew, or set it.
                    set_sequences(inside, json.loads(small[paths.SEQUENCES]))
                left_out = frozenset() if saved.whole else _left_out(address, saved.rows)
                loaded, replayed = self._fill(content, saved, archive, address, left_out, opened)
            with _unheard(address) as inside:
                clear_room(inside)
                set_sequences(inside, _sequences(replayed))
                lead_columns(inside)
                waiting = () if replayed is None else replayed.views
                problems += _fill_views(inside, database["materialized"], waiting)
                inside.execute("analyze")
            problems += dress_database(connection, new, database)
            state = "loaded" if replayed is None else "replayed"
            limit = database["connection_limit"]
            self._switch.mark(connection, state, database["comment"], limit)
        return LoadReport(loaded.entries + len(small), loaded.bytes, (*problems, *loaded.problems))

    def compare(self, entries: Iterable[Entry]) -> list[Problem]:
        """Tables whose rows are not as many as were saved."""
        expected: dict[tuple[str, str], int] = {}
        for entry in entries:
            if entry.path.startswith(paths.DATA) and not entry.meta.get("where"):
                table = paths.table_of(entry.path)
                expected[table] = expected.get(table, 0) + entry.meta["rows"]
        with self._refused(), self._switch.connected() as connection:
            state = self._switch.state(connection)
        if state not in ("loaded", "replayed"):
            raise RestoreError(f"nothing was loaded for {self._address.shown}")
        if state == "replayed":
            return []  # each change of the log has found the rows that it changed
        with self._refused(), connected(self._address.of(self._switch.new)) as inside:
            return [
                Problem(f"{schema}.{name}", f"holds {found} rows instead of {rows}")
                for (schema, name), rows in expected.items()
                if (found := _count(inside, schema, name)) != rows
            ]

    def commit(self) -> None:
        """
        Let the two databases change names; raises RestoreError where that is refused.

        An extension that rests wakes only here: what it does by itself would spoil the comparison.
        """
        with self._refused():
            with self._switch.connected() as connection:
                is_loaded = self._switch.is_there(connection, self._switch.new)
            if is_loaded:
                wake(self._address.of(self._switch.new), is_new=True)
            self._switch.commit(overwrite=self._overwrite)
            wake(self._address, is_new=False)

    def roll_back(self) -> None:
        """Give the old database its name again, and drop the new one."""
        with self._refused():
            with self._switch.connected() as connection:
                is_switched = self._switch.is_there(connection, self._switch.before)
            self._switch.roll_back()
            if is_switched:
                wake(self._address, is_new=False)

    def finish(self) -> None:
        """Drop the old database, and the slots that kept its log."""
        with self._refused():
            self._switch.finish()

    # ------------------------------------------------------------------ their steps

    def _fill(
        self,
        content: Content,
        saved: _Saved,
        archive: Archive,
        address: Address,
        left_out: frozenset[int],
        opened: list[str],
    ) -> tuple[Loaded, Replayed | None]:
        """
        Load rows, replay the log, and build indexes and keys: after it, or before its first DDL.

        The log is folded while rows are loaded: the one is our work, the other the server's.
        """
        built = False

        def build() -> None:
            nonlocal built
            if not built:
                with connected(address) as inside:
                    shut(inside, opened)
                archive.make(address, "post-data", self._jobs)
                built = True

        with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
            loading = pool.submit(load_rows, content, saved.rows, address, self._jobs)
            changes = content.log()
            replayed = None
            if changes is not None:
                objects = loaded_objects(changes, saved.rows, saved.mark, whole=saved.whole)
                hooks = Hooks(loading.result, build)
                with _short_turns():
                    replayed = replay(changes, address, hooks, objects, left_out)
                tell_of_objects(self._address, replayed.objects, changes)
            loaded = loading.result()
        build()
        if replayed is not None:
            loaded = loaded._replace(problems=(*loaded.problems, *replayed.problems))
        return loaded, replayed

    def _check_rights(self, connection: Connection) -> None:
        row = connection.execute("select rolsuper from pg_roles where rolname = user").fetchone()
        if row is None or not row[0]:
            raise RestoreError(
                f"{self._address.shown}: {self._address.user} is no superuser, and only one can"
                " give everything in a database back to its owners",
                "Name a superuser in the target's address with --to.",
            )

    def _check_version(self, connection: Connection, schema: Entry) -> None:
        there, saved = connection.info.server_version // 10_000, schema.meta["version"] // 10_000
        if there < saved:
            raise RestoreError(
                f"{self._address.shown} is PostgreSQL {there}, older than the {saved} that was"
                " saved",
                f"Restore to a server of version {saved} or later with --to.",
            )
        programs_for(there)

    def _check_template(self, connection: Connection) -> None:
        name = self._address.database
        query = "select from pg_database where datname = %s and datistemplate"
        if connection.execute(query, (name,)).fetchone() is not None:
            raise RestoreError(
                f"{self._address.shown} is a template, which the server makes databases of and"
                " never drops",
                f"Restore to another name with --to, such as .../{name}_restored.",
            )

    def _check_overwrite(self, *, whole: bool) -> None:
        if not self._overwrite:
            raise WouldOverwrite(
                f"{self._address.shown} is there already",
                "Restore to another name with --to, such as"
                f" .../{self._address.database}_restored, or say --overwrite.",
            )
        if not whole:
            raise WouldOverwrite(
                f"{self._address.shown} would be replaced by a part of it: --include leaves tables"
                " empty",
                "Restore the part to another name with --to, and take from there what is needed.",
            )

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """A refusal by the server is told as one of the restore's."""
        try:
            yield
        except TargetFull:
            raise
        except SourceError as error:
            raise RestoreError(error.message, error.hint) from error


@contextmanager
def _short_turns() -> Iterator[None]:
    """Threads take turns more often: folding would keep those waiting that pass rows on."""
    sys.setswitchinterval(_SHORT_TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(_USUAL_TURN_S)


def _sorted(content: Content) -> _Saved:
    rows: list[Entry] = []
    ranges: list[int] = []
    marks: list[Mapping[str, Any] | None] = []

    def is_small(entry: Entry) -> bool:
        if entry.path.startswith((paths.DATA, paths.LARGE_OBJECTS)):
            rows.append(entry)
            return False
        if entry.path == paths.SCHEMA_DUMP:
            ranges.append(entry.meta["ranges"])
        if entry.path == paths.DATABASE:
            marks.append(entry.meta.get(MARK))
        return entry.path != FOLDED  # it comes with the log

    small = {entry.path: _joined(pieces) for entry, pieces in content.items(is_small)}
    for name in (paths.SCHEMA_DUMP, paths.DATABASE, paths.ROLES, paths.SEQUENCES):
        if name not in small:
            raise ValidationFailed(f"the snapshot of the database lacks {name.decode()}")
    whole = sum(entry.path.startswith(paths.DATA) for entry in rows) == ranges[0]
    return _Saved(small, rows, whole, marks[0])


def _make(archive: Archive, address: Address, timescaledb: Sequence[str] | None) -> None:
    """Make tables and all else that rows need, in a database without anything."""
    if timescaledb is not None:
        archive.make_schema(address, timescaledb[1])
        rest(address, timescaledb)
    archive.make(address, "pre-data", 1)


def _left_out(address: Address, rows: Iterable[Entry]) -> frozenset[int]:
    """The tables of a database whose rows were not loaded."""
    loaded = {paths.table_of(entry.path) for entry in rows if entry.path.startswith(paths.DATA)}
    with connected(address) as connection:
        there = connection.execute(_TABLES).fetchall()
    return frozenset(oid for oid, schema, name in there if (schema, name) not in loaded)


def _joined(pieces: Iterable[Blob]) -> bytes:
    return b"".join(bytes(piece) for piece in pieces)


def _sequences(replayed: Replayed | None) -> list[list[Any]]:
    if replayed is None or replayed.sequences is None:
        return []
    return [list(sequence) for sequence in replayed.sequences]


@contextmanager
def _unheard(address: Address) -> Iterator[Connection]:
    """A connection of which no event trigger of the tenant's hears."""
    with connected(address, options=f"-c session_replication_role=replica {AWAKE}") as connection:
        hush = Hush(connection)
        hush.begin()
        yield connection
        hush.close()


def _fill_views(
    connection: Connection, views: list[list[str]], oids: Iterable[int]
) -> list[Problem]:
    """Fill materialized views; one that needs another comes after it, in as many rounds as help."""
    # The log may have dropped some, and given others another name.
    known = {(schema, name) for schema, name in views}
    unfilled = connection.execute(_UNFILLED, (list(oids),)).fetchall()
    chosen = [(schema, name) for schema, name, told in unfilled if told or (schema, name) in known]
    left = [
        sql.SQL("refresh materialized view {}").format(sql.Identifier(*view)) for view in chosen
    ]
    while left:
        refused = [
            (statement, problem)
            for statement in left
            for problem in run_all(connection, [statement], "a materialized view")
        ]
        if len(refused) == len(left):
            return [problem for _, problem in refused]
        left = [statement for statement, _ in refused]
    return []


def _count(connection: Connection, schema: str, name: str) -> int:
    if connection.execute(_IS_TABLE, (schema, name)).fetchone() is None:
        return -1  # a view would run what it is made of
    query = sql.SQL("select count(*) from only {}").format(sql.Identifier(schema, name))
    row = connection.execute(query).fetchone()
    return int(row[0]) if row is not None else -1
