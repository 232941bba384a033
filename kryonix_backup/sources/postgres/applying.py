"""What a stretch of the log comes to, applied to a database in bulk and proved to fit it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import NamedTuple

from psycopg import sql

from kryonix_backup.errors import ValidationFailed
from kryonix_backup.sources.postgres import pgoutput
from kryonix_backup.sources.postgres.copytext import row_blocks, value_blocks
from kryonix_backup.sources.postgres.latest import Latest
from kryonix_backup.sources.postgres.net import State
from kryonix_backup.sources.postgres.pgoutput import UNCHANGED, Relation, Row
from kryonix_backup.sources.postgres.session import Connection

# Tables of this session alone; they come and go within one transaction.
_DOOMED = sql.Identifier("kryonix_doomed")
_FILLED = sql.Identifier("kryonix_filled")
_BASE = sql.Identifier("kryonix_base")


class Bulk(NamedTuple):
    """
    What a stretch of the log comes to in one table, as it is sent to a server.

    ``gone`` and ``came`` are blocks of COPY's text: keys of rows that were there, and rows that are
    there now. Without a key, rows that went stand with their number. ``partial`` are rows with
    values that only the table holds.
    """

    relation: Relation
    truncated: bool
    by_key: bool
    gone: list[bytes]
    gone_count: int
    came: list[bytes]
    partial: list[State]


def bulk_of(changes: Latest) -> Bulk:
    """All of them; raises Damaged for a row that has the wrong form."""
    return _bulk_by_key(changes) if changes.net.by_key else _bulk_of_rows(changes)


def _bulk_by_key(changes: Latest) -> Bulk:
    net, rows, fresh = changes.net, changes.rows, changes.fresh
    keys = [changes.key_row(key) for key in rows if key not in fresh]
    keys += [pgoutput.encoded_row(key) for key, state in net.keys.items() if state.existed]
    now = [state for state in net.keys.values() if state.row is not None]
    came = chain(
        (row for row in rows.values() if row is not None),
        (pgoutput.encoded_row(state.row or ()) for state in now if not _is_partial(state)),
    )
    return Bulk(
        relation=net.relation,
        truncated=net.truncated,
        by_key=True,
        gone=row_blocks(keys),
        gone_count=len(keys),
        came=row_blocks(came),
        partial=[state for state in now if _is_partial(state)],
    )


def _bulk_of_rows(changes: Latest) -> Bulk:
    net = changes.net
    gone = [(row, -count) for row, count in net.rows.items() if count < 0]
    came = chain(
        chain.from_iterable(repeat(row, count) for row, count in changes.came.items()),
        chain.from_iterable(
            repeat(pgoutput.encoded_row(row), count)
            for row, count in net.rows.items() if count > 0
        ),
    )  # fmt: skip
    return Bulk(
        relation=net.relation,
        truncated=net.truncated,
        by_key=False,
        gone=value_blocks((*row, b"%d" % count) for row, count in gone),
        gone_count=sum(count for _, count in gone),
        came=row_blocks(came),
        partial=[],
    )


def apply_all(connection: Connection, bulks: Sequence[Bulk]) -> None:
    """
    Apply the changes of some tables in one transaction.

    Raises ValidationFailed where a table did not hold what the changes say it held.
    """
    with connection.transaction():
        emptied = [_table(bulk) for bulk in bulks if bulk.truncated]
        if emptied:
            # Together: one may refer to another by a foreign key.
            connection.execute(sql.SQL("truncate only {}").format(sql.SQL(", only ").join(emptied)))
        for bulk in bulks:
            if bulk.by_key:
                _ByKey(connection, bulk).apply()
            else:
                _WholeRows(connection, bulk).apply()


class _ByKey:
    """A table whose rows have a key."""

    def __init__(self, connection: Connection, bulk: Bulk) -> None:
        self._connection = connection
        self._bulk = bulk
        self._table = _table(bulk)
        columns = bulk.relation.columns
        self._columns = _names(columns)
        self._keys = [columns[place] for place in bulk.relation.keys]

    def apply(self) -> None:
        """Fill what the log does not hold, delete what was there, write what is there now."""
        if self._bulk.partial:
            self._fill(self._bulk.partial)
        if self._bulk.gone:
            self._delete()
        _copy(self._connection, self._table, self._columns, self._bulk.came)
        if self._bulk.partial:
            self._connection.execute(
                sql.SQL("insert into {} ({}) overriding system value select {} from {}").format(
                    self._table, self._columns, self._columns, _FILLED
                )
            )
            self._connection.execute(sql.SQL("drop table {}").format(_FILLED))

    def _delete(self) -> None:
        run = self._connection.execute
        names = _names(self._keys)
        run(_like(_DOOMED, names, self._table))
        _copy(self._connection, _DOOMED, names, self._bulk.gone)
        run(sql.SQL("analyze {}").format(_DOOMED))
        found = run(
            sql.SQL("delete from only {} t using {} k where {}").format(
                self._table, _DOOMED, self._same(self._keys, self._keys, "k")
            )
        ).rowcount
        run(sql.SQL("drop table {}").format(_DOOMED))
        _prove(self._bulk, found, self._bulk.gone_count)

    def _fill(self, partial: list[State]) -> None:
        """The rows with values that only the table holds, as they are to be, in `_FILLED`."""
        run = self._connection.execute
        run(_like(_FILLED, self._columns, self._table))
        groups: dict[tuple[int, ...], list[State]] = defaultdict(list)
        for state in partial:
            assert state.row is not None
            holes = tuple(at for at, value in enumerate(state.row) if value is UNCHANGED)
            groups[holes].append(state)
        for holes, states in groups.items():
            self._fill_group(holes, states)

    def _fill_group(self, holes: tuple[int, ...], states: list[State]) -> None:
        run = self._connection.execute
        columns = self._bulk.relation.columns
        origins = [f"kryonix_{place}" for place in range(len(self._keys))]
        run(
            sql.SQL("create temp table {} as select {}, {} from only {} with no data").format(
                _BASE,
                sql.SQL(", ").join(
                    sql.SQL("{} as {}").format(sql.Identifier(key), sql.Identifier(origin))
                    for key, origin in zip(self._keys, origins, strict=True)
                ),
                self._columns,
                self._table,
            )
        )
        rows = ((*(state.origin or ()), *_without_holes(state.row)) for state in states)
        _copy(self._connection, _BASE, _names((*origins, *columns)), value_blocks(rows))
        chosen = sql.SQL(", ").join(
            sql.Identifier("t" if at in holes else "b", column) for at, column in enumerate(columns)
        )
        found = run(
            sql.SQL("insert into {} select {} from {} b join only {} t on {}").format(
                _FILLED, chosen, _BASE, self._table, self._same(self._keys, origins, "b")
            )
        ).rowcount
        run(sql.SQL("drop table {}").format(_BASE))
        _prove(self._bulk, found, len(states))

    def _same(self, ours: Sequence[str], theirs: Sequence[str], alias: str) -> sql.Composed:
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(sql.Identifier("t", one), sql.Identifier(alias, other))
            for one, other in zip(ours, theirs, strict=True)
        )


class _WholeRows:
    """A table whose rows have no key: equal ones are counted, and values compared as text."""

    def __init__(self, connection: Connection, bulk: Bulk) -> None:
        self._connection = connection
        self._bulk = bulk
        self._table = _table(bulk)
        self._columns = _names(bulk.relation.columns)

    def apply(self) -> None:
        """Delete as many equal rows as went, write as many as came."""
        if self._bulk.gone:
            self._delete()
        _copy(self._connection, self._table, self._columns, self._bulk.came)

    def _delete(self) -> None:
        run = self._connection.execute
        columns = self._bulk.relation.columns
        places = [f"c{place}" for place in range(len(columns))]
        run(
            sql.SQL("create temp table {} ({})").format(
                _DOOMED,
                sql.SQL(", ").join(
                    [
                        *(sql.SQL("{} text").format(sql.Identifier(name)) for name in places),
                        sql.SQL("n int"),
                    ]
                ),
            )
        )
        _copy(self._connection, _DOOMED, _names((*places, "n")), self._bulk.gone)
        found = run(
            sql.SQL(
                "delete from only {table} t using (select ctid as place, row_number() over"
                " (partition by {ours}) as number, {ours} as whole from only {table}) o"
                " join (select {theirs} as whole, n from {doomed}) d on d.whole = o.whole"
                " where t.ctid = o.place and o.number <= d.n"
            ).format(
                table=self._table,
                ours=_as_text(columns),
                theirs=_as_text(places),
                doomed=_DOOMED,
            )
        ).rowcount
        run(sql.SQL("drop table {}").format(_DOOMED))
        _prove(self._bulk, found, self._bulk.gone_count)


def _prove(bulk: Bulk, found: int, expected: int) -> None:
    if found != expected:
        raise ValidationFailed(
            f"table {bulk.relation.shown} held {found} of the {expected} rows that its transaction"
            " log changes",
            "The log does not fit the snapshot; restore the snapshot itself, or another one.",
        )


def _is_partial(state: State) -> bool:
    return state.row is not None and UNCHANGED in state.row


def _without_holes(row: Row | None) -> Iterator[bytes | None]:
    for value in row or ():
        yield value if isinstance(value, bytes) else None


def _table(bulk: Bulk) -> sql.Identifier:
    return sql.Identifier(bulk.relation.schema, bulk.relation.name)


def _names(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _as_text(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL("row({})::text").format(
        sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in columns)
    )


def _like(name: sql.Identifier, columns: sql.Composed, table: sql.Identifier) -> sql.Composed:
    return sql.SQL("create temp table {} as select {} from only {} with no data").format(
        name, columns, table
    )


def _copy(
    connection: Connection,
    table: sql.Identifier,
    columns: sql.Composed,
    text: Iterable[bytes],
) -> None:
    # A table without columns has rows, but no list of columns.
    listed = sql.SQL("({})").format(columns) if columns.as_string() else sql.SQL("")
    statement = sql.SQL("copy {} {} from stdin").format(table, listed)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for block in text:
            copy.write(block)
