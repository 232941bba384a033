"""What a stretch of the log comes to, applied to a database in bulk and proved to fit it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from psycopg import sql

from kryonix_backup.errors import ValidationFailed
from kryonix_backup.sources.postgres.net import Key, State, TableNet
from kryonix_backup.sources.postgres.pgoutput import UNCHANGED, Row
from kryonix_backup.sources.postgres.session import Connection

_BATCH = 2000  # rows that go into one write
# Tables of this session alone; they come and go within one transaction.
_DOOMED = sql.Identifier("kryonix_doomed")
_FILLED = sql.Identifier("kryonix_filled")
_BASE = sql.Identifier("kryonix_base")


def apply_all(connection: Connection, nets: Sequence[TableNet]) -> None:
    """
    Apply the changes of some tables in one transaction.

    Raises ValidationFailed where a table did not hold what the changes say it held.
    """
    with connection.transaction():
        emptied = [_table(net) for net in nets if net.truncated]
        if emptied:
            # Together: one may refer to another by a foreign key.
            connection.execute(sql.SQL("truncate only {}").format(sql.SQL(", only ").join(emptied)))
        for net in nets:
            if net.by_key:
                _ByKey(connection, net).apply()
            else:
                _WholeRows(connection, net).apply()


class _ByKey:
    """A table whose rows have a key."""

    def __init__(self, connection: Connection, net: TableNet) -> None:
        self._connection = connection
        self._net = net
        self._table = _table(net)
        columns = net.relation.columns
        self._columns = _names(columns)
        self._keys = [columns[place] for place in net.relation.keys]

    def apply(self) -> None:
        """Fill what the log does not hold, delete what was there, write what is there now."""
        states = self._net.keys
        partial = [(key, state) for key, state in states.items() if _is_partial(state)]
        if partial:
            self._fill(partial)
        self._delete([key for key, state in states.items() if state.existed])
        whole = (
            state.row
            for state in states.values()
            if state.row is not None and not _is_partial(state)
        )
        _copy(self._connection, self._table, self._columns, whole)
        if partial:
            self._connection.execute(
                sql.SQL("insert into {} ({}) overriding system value select {} from {}").format(
                    self._table, self._columns, self._columns, _FILLED
                )
            )
            self._connection.execute(sql.SQL("drop table {}").format(_FILLED))

    def _delete(self, keys: list[Key]) -> None:
        if not keys:
            return
        run = self._connection.execute
        names = _names(self._keys)
        run(_like(_DOOMED, names, self._table))
        _copy(self._connection, _DOOMED, names, keys)
        run(sql.SQL("analyze {}").format(_DOOMED))
        found = run(
            sql.SQL("delete from only {} t using {} k where {}").format(
                self._table, _DOOMED, self._same(self._keys, self._keys, "k")
            )
        ).rowcount
        run(sql.SQL("drop table {}").format(_DOOMED))
        self._prove(found, len(keys))

    def _fill(self, partial: list[tuple[Key, State]]) -> None:
        """The rows with values that only the table holds, as they are to be, in `_FILLED`."""
        run = self._connection.execute
        run(_like(_FILLED, self._columns, self._table))
        groups: dict[tuple[int, ...], list[State]] = defaultdict(list)
        for _, state in partial:
            assert state.row is not None
            holes = tuple(at for at, value in enumerate(state.row) if value is UNCHANGED)
            groups[holes].append(state)
        for holes, states in groups.items():
            self._fill_group(holes, states)

    def _fill_group(self, holes: tuple[int, ...], states: list[State]) -> None:
        run = self._connection.execute
        columns = self._net.relation.columns
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
        _copy(self._connection, _BASE, _names((*origins, *columns)), rows)
        chosen = sql.SQL(", ").join(
            sql.Identifier("t" if at in holes else "b", column) for at, column in enumerate(columns)
        )
        found = run(
            sql.SQL("insert into {} select {} from {} b join only {} t on {}").format(
                _FILLED, chosen, _BASE, self._table, self._same(self._keys, origins, "b")
            )
        ).rowcount
        run(sql.SQL("drop table {}").format(_BASE))
        self._prove(found, len(states))

    def _same(self, ours: Sequence[str], theirs: Sequence[str], alias: str) -> sql.Composed:
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(sql.Identifier("t", one), sql.Identifier(alias, other))
            for one, other in zip(ours, theirs, strict=True)
        )

    def _prove(self, found: int, expected: int) -> None:
        _prove(self._net, found, expected)


class _WholeRows:
    """A table whose rows have no key: equal ones are counted, and values compared as text."""

    def __init__(self, connection: Connection, net: TableNet) -> None:
        self._connection = connection
        self._net = net
        self._table = _table(net)
        self._columns = _names(net.relation.columns)

    def apply(self) -> None:
        """Delete as many equal rows as went, write as many as came."""
        gone = [(row, -count) for row, count in self._net.rows.items() if count < 0]
        if gone:
            self._delete(gone)
        came = (row for row, count in self._net.rows.items() for _ in range(count))
        _copy(self._connection, self._table, self._columns, came)

    def _delete(self, gone: list[tuple[Row, int]]) -> None:
        run = self._connection.execute
        columns = self._net.relation.columns
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
        rows = ((*row, b"%d" % count) for row, count in gone)
        _copy(self._connection, _DOOMED, _names((*places, "n")), rows)
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
        _prove(self._net, found, sum(count for _, count in gone))


def _prove(net: TableNet, found: int, expected: int) -> None:
    if found != expected:
        raise ValidationFailed(
            f"table {net.relation.shown} held {found} of the {expected} rows that its transaction"
            " log changes",
            "The log does not fit the snapshot; restore the snapshot itself, or another one.",
        )


def _is_partial(state: State) -> bool:
    return state.row is not None and UNCHANGED in state.row


def _without_holes(row: Row | None) -> Iterator[bytes | None]:
    for value in row or ():
        yield value if isinstance(value, bytes) else None


def _table(net: TableNet) -> sql.Identifier:
    return sql.Identifier(net.relation.schema, net.relation.name)


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
    rows: Iterable[Sequence[object]],
) -> None:
    # A table without columns has rows, but no list of columns.
    listed = sql.SQL("({})").format(columns) if columns.as_string() else sql.SQL("")
    statement = sql.SQL("copy {} {} from stdin").format(table, listed)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        batch: list[bytes] = []
        for row in rows:
            batch.append(b"\t".join([_escaped(value) for value in row]))
            if len(batch) >= _BATCH:
                copy.write(b"\n".join(batch) + b"\n")
                batch.clear()
        if batch:
            copy.write(b"\n".join(batch) + b"\n")


def _escaped(value: object) -> bytes:
    """A value as COPY's text wants it."""
    if value is None:
        return b"\\N"
    assert isinstance(value, bytes)
    if b"\\" in value or b"\n" in value or b"\t" in value or b"\r" in value:
        value = value.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
        return value.replace(b"\t", b"\\t").replace(b"\r", b"\\r")
    return value
