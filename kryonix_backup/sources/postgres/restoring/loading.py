"""Rows and large objects into a new database, on several connections at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from psycopg import sql

from kryonix_backup.errors import ValidationFailed
from kryonix_backup.model import Blob, Entry, Problem
from kryonix_backup.sources.postgres.dumping import paths
from kryonix_backup.sources.postgres.restoring.guarding import Guard, guards, write_rows
from kryonix_backup.sources.postgres.restoring.objects import dress_object
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import Connection, connected
from kryonix_backup.sources.source import Content

_EXTENSION = """
select from pg_depend
where classid = 'pg_class'::regclass and objid = %s::regclass and deptype = 'e'
"""
_FAST = "-c session_replication_role=replica -c synchronous_commit=off"


class Loaded(NamedTuple):
    """What was written; bytes are those of COPY's text."""

    entries: int
    bytes: int
    problems: tuple[Problem, ...] = ()


def load_rows(content: Content, entries: Sequence[Entry], address: Address, jobs: int) -> Loaded:
    """
    Bring the rows and large objects of these entries into a database without indexes.

    A table is filled by one connection in one transaction, frozen from the start. Those where code
    of the tenant's runs come last: it could change the others. Raises ValidationFailed where the
    server counted other rows than were saved.
    """
    with connected(address) as connection:
        found = guards(connection)
    plain: list[Entry] = []
    guarded: list[Entry] = []
    for entry in entries:
        (guarded if _table_of(entry) in found else plain).append(entry)
    done: list[Loaded] = []
    for each in (plain, guarded):
        shares = [share for share in _shared(each, jobs) if share]
        with ThreadPoolExecutor(max(1, len(shares)), thread_name_prefix="rows") as pool:
            done += pool.map(lambda share: _Filling(address, share, found).run(content), shares)
    return Loaded(
        sum(each.entries for each in done),
        sum(each.bytes for each in done),
        tuple(problem for each in done for problem in each.problems),
    )


def _table_of(entry: Entry) -> tuple[str, str] | None:
    return paths.table_of(entry.path) if entry.path.startswith(paths.DATA) else None


def _shared(entries: Sequence[Entry], jobs: int) -> list[frozenset[bytes]]:
    """The entries in shares of about equal size; those of one table stay together."""
    groups: dict[bytes, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.path.rpartition(b"/")[0]].append(entry)
    sizes = {name: sum(entry.size for entry in group) for name, group in groups.items()}
    shares: list[set[bytes]] = [set() for _ in range(jobs)]
    weights = [0] * jobs
    for name in sorted(groups, key=lambda each: -sizes[each]):
        least = weights.index(min(weights))
        weights[least] += sizes[name] + 1
        shares[least].update(entry.path for entry in groups[name])
    return [frozenset(share) for share in shares]


class _Filling:
    """One connection's share."""

    def __init__(
        self,
        address: Address,
        share: frozenset[bytes],
        guarded: Mapping[tuple[str, str], Guard],
    ) -> None:
        self._address = address
        self._share = share
        self._guarded = guarded
        self._table = b""
        self._frozen = False
        self._bytes = 0
        self._problems: list[Problem] = []

    def run(self, content: Content) -> Loaded:
        with connected(self._address, options=_FAST) as connection:
            connection.execute("begin")
            for entry, pieces in content.items(lambda entry: entry.path in self._share):
                if entry.path.startswith(paths.DATA):
                    self._rows(connection, entry, pieces)
                else:
                    self._large_object(connection, entry, pieces)
            connection.execute("commit")
        return Loaded(len(self._share), self._bytes, tuple(self._problems))

    def _rows(self, connection: Connection, entry: Entry, pieces: Iterable[Blob]) -> None:
        schema, name = paths.table_of(entry.path)
        guard = self._guarded.get((schema, name))
        if guard is None:
            written = self._copy(connection, entry, pieces, sql.Identifier(schema, name))
        else:
            written = write_rows(
                connection, sql.Identifier(schema, name), entry.meta["columns"],
                self._counted(pieces), guard,
            )  # fmt: skip
        if written != entry.meta["rows"]:
            raise ValidationFailed(
                f"{self._address.shown}: table {schema}.{name} took {written} rows"
                f" of the {entry.meta['rows']} that were saved in {entry.text}"
            )

    def _counted(self, pieces: Iterable[Blob]) -> Iterator[Blob]:
        for piece in pieces:
            yield piece
            self._bytes += len(piece)

    def _copy(
        self, connection: Connection, entry: Entry, pieces: Iterable[Blob], table: sql.Identifier
    ) -> int:
        folder = entry.path.rpartition(b"/")[0]
        if folder != self._table:
            connection.execute("commit")
            connection.execute("begin")
            self._frozen = self._emptied(connection, table, entry.meta.get("where", ""))
            self._table = folder
        names = sql.SQL(", ").join(map(sql.Identifier, entry.meta["columns"]))
        columns = sql.SQL("({})").format(names) if entry.meta["columns"] else sql.SQL("")
        statement = sql.SQL("copy {} {} from stdin with (freeze {})").format(
            table, columns, sql.Literal(self._frozen)
        )
        with connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for piece in self._counted(pieces):
                    copy.write(piece)
            return cursor.rowcount

    def _emptied(self, connection: Connection, table: sql.Identifier, where: str) -> bool:
        """
        Empty a table for the rows that were saved; whether COPY may freeze those.

        An extension has filled its tables when it was made. What was saved of them takes the place
        of the same rows, and the others stay: ``where`` is the extension's own word for that.
        """
        found = connection.execute(_EXTENSION, (table.as_string(connection),)).fetchone()
        if found is None:
            # Only what this transaction has emptied so may be frozen.
            connection.execute(sql.SQL("truncate only {}").format(table))
            return True
        # Keys between the extension's tables forbid TRUNCATE.
        connection.execute(sql.SQL("delete from only {} {}").format(table, sql.SQL(where)))
        return False

    def _large_object(self, connection: Connection, entry: Entry, pieces: Iterable[Blob]) -> None:
        oid = int(entry.path.removeprefix(paths.LARGE_OBJECTS))
        connection.execute("select lo_create(%s)", (oid,))
        offset = 0
        for piece in pieces:
            connection.execute("select lo_put(%s, %s, %b)", (oid, offset, bytes(piece)))
            offset += len(piece)
        self._bytes += offset
        self._problems += dress_object(connection, oid, entry.meta)
