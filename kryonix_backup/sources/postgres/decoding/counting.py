"""Reading a segment of a database's log as a replay would, to see whether it holds what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kryonix_backup.errors import Damaged
from kryonix_backup.model import Blob
from kryonix_backup.sources.postgres.decoding import pgoutput, sample
from kryonix_backup.sources.postgres.server.address import SCHEMA
from kryonix_backup.sources.source import LogCounts

_COMMIT_BYTES = 26


def count_log(body: Iterable[Blob]) -> LogCounts:
    """How many commits and changes a segment's body holds; raises Damaged for an unreadable one."""
    return _Counting().run(body)


class _Counting:
    """One body; changes are counted as the `Cutter` that wrote it did."""

    def __init__(self) -> None:
        self._commits = self._changes = 0
        self._inside = False
        self._ours: dict[int, bool] = {}  # tables that were told of, and whether they are ours
        self._kinds: Mapping[int, Callable[[bytes], None]] = {
            ord("B"): self._begin,
            ord("C"): self._commit,
            ord("R"): self._relation,
            ord("I"): lambda message: self._row(pgoutput.insert(message).oid),
            ord("U"): lambda message: self._row(pgoutput.update(message).oid),
            ord("D"): lambda message: self._row(pgoutput.delete(message).oid),
            ord("T"): self._truncate,
            ord("M"): self._message,
            ord("O"): self._pass,
            ord("Y"): self._pass,
            sample.KIND: self._sampled,
        }

    def run(self, body: Iterable[Blob]) -> LogCounts:
        for message in pgoutput.frames(body):
            count = self._kinds.get(message[0])
            if count is None:
                raise Damaged(f"it holds a message of the unknown kind {message[0]}")
            count(message)
        if self._inside:
            raise Damaged("it ends inside a transaction")
        return LogCounts(self._commits, self._changes)

    def _begin(self, message: bytes) -> None:
        pgoutput.begin(message)
        if self._inside:
            raise Damaged("a transaction begins in it inside another one")
        self._inside = True

    def _commit(self, message: bytes) -> None:
        if not self._inside or len(message) != _COMMIT_BYTES:
            raise Damaged("a transaction ends in it that did not begin, or in the wrong form")
        self._inside = False
        self._commits += 1

    def _relation(self, message: bytes) -> None:
        relation = pgoutput.relation(message)
        self._ours[relation.oid] = relation.schema == SCHEMA

    def _row(self, oid: int) -> None:
        if oid not in self._ours:
            raise Damaged(f"it changes table {oid} before it says what it is")
        self._changes += not self._ours[oid]

    def _truncate(self, message: bytes) -> None:
        pgoutput.truncated(message)
        self._changes += 1

    def _message(self, message: bytes) -> None:
        pgoutput.logical(message)

    def _sampled(self, message: bytes) -> None:
        sample.parse(message)

    def _pass(self, message: bytes) -> None:
        """Origins and types hold nothing that is counted."""
