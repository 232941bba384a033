"""What a stretch of the log comes to, applied to a database in bulk and proved to fit it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, repeat
from typing import NamedTuple, Self

from psycopg import sql

from kryonix_backup.errors import RestoreError, ValidationFailed
from kryonix_backup.sources.postgres.decoding import pgoutput
from kryonix_backup.sources.postgres.decoding.copytext import row_blocks, value_blocks
from kryonix_backup.sources.postgres.decoding.latest import Latest
from kryonix_backup.sources.postgres.decoding.net import State
from kryonix_backup.sources.postgres.decoding.pgoutput import UNCHANGED, Relation, Row
from kryonix_backup.sources.postgres.restoring.guarding import (
    Guard,
    guards,
    insert_as_owner,
    refuse_views,
    write_rows,
)
from kryonix_backup.sources.postgres.server.address import SCHEMA
from kryonix_backup.sources.postgres.server.session import Connection

# Tables of this session alone; they come and go within one transaction.
_DOOMED = sql.Identifier("kryonix_doomed")
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


class Applier:
    """
    Applies one stretch after the other on a thread of its own, while the next one is folded.

    Nothing is applied before ``ready`` returns. What fails is raised by the next call; leave the
    context to end the thread.
    """

    def __init__(self, connection: Connection, ready: Callable[[], object]) -> None:
        self.connection = connection
        """Anybody's after `wait` or `settle`, and until the next `add`."""
        self._ready = ready
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="apply")
        self._under_way: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._pool.shutdown()

    def add(self, bulks: Sequence[Bulk]) -> None:
        """Apply these once those before them are applied; waits for those."""
        self.wait()
        self._under_way = self._pool.submit(self._apply, bulks)

    def settle(self) -> None:
        """Wait until everything is applied, and might be changed in other ways."""
        self.wait()
        self._ready()

    def wait(self) -> None:
        """Wait until nothing is being applied."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def _apply(self, bulks: Sequence[Bulk]) -> None:
        self._ready()
        apply_all(self.connection, bulks)


def apply_all(connection: Connection, bulks: Sequence[Bulk]) -> None:
    """
    Apply the changes of some tables in one transaction.

    Code of the tenant's runs at the very end: it could change what comes after it. Raises
    ValidationFailed where a table did not hold what the changes say it held.
    """
    names = [(bulk.relation.schema, bulk.relation.name) for bulk in bulks]
    with connection.transaction():
        refuse_views(connection, names)
        emptied = [_table(bulk) for bulk in bulks if bulk.truncated]
        if emptied:
            # Together: one may refer to another by a foreign key.
            connection.execute(sql.SQL("truncate only {}").format(sql.SQL(", only ").join(emptied)))
        found = guards(connection, names)
        steps = [
            (_ByKey if bulk.by_key else _WholeRows)(connection, bulk, found.get(name), number)
            for number, (name, bulk) in enumerate(zip(names, bulks, strict=True))
        ]
        for step in steps:
            step.take()
        for step in sorted(steps, key=lambda each: each.guard is not None):
            step.give()


class _ByKey:
    """A table whose rows have a key."""

    def __init__(
        self, connection: Connection, bulk: Bulk, guard: Guard | None, number: int
    ) -> None:
        self.guard = guard
        self._connection = connection
        self._bulk = bulk
        self._table = _table(bulk)
        columns = bulk.relation.columns
        self._columns = _names(columns)
        # The rows with values that only the table holds; an owner may see no temporary table.
        name = f"kryonix_filled_{number}"
        self._filled = sql.Identifier(name) if guard is None else sql.Identifier(SCHEMA, name)
        self._keys = [columns[place] for place in bulk.relation.keys]

    def take(self) -> None:
        """Fill what the log does not hold, and delete what was there."""
        if self._bulk.partial:
            self._fill(self._bulk.partial)
        if self._bulk.gone:
            self._delete()

    def give(self) -> None:
        """Write what is there now."""
        _write(self._connection, self._bulk, self.guard)
        if self._bulk.partial:
            self._write_filled()
            self._connection.execute(sql.SQL("drop table {}").format(self._filled))

    def _write_filled(self) -> None:
        if self.guard is not None:
            columns = self._bulk.relation.columns
            insert_as_owner(
                self._connection, self._table, columns, self._columns, self._filled, self.guard
            )
            return
        self._connection.execute(
            sql.SQL("insert into {} ({}) overriding system value select {} from {}").format(
                self._table, self._columns, self._columns, self._filled
            )
        )

    def _delete(self) -> None:
        run = self._connection.execute
        names = _names(self._keys)
        self._like(_DOOMED, self._keys)
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
        """The rows with values that only the table holds, as they are to be."""
        self._like(self._filled, self._bulk.relation.columns)
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
        self._like(_BASE, columns, zip(self._keys, origins, strict=True))
        rows = ((*(state.origin or ()), *_without_holes(state.row)) for state in states)
        _copy(self._connection, _BASE, _names((*origins, *columns)), value_blocks(rows))
        chosen = sql.SQL(", ").join(
            sql.Identifier("t" if at in holes else "b", column) for at, column in enumerate(columns)
        )
        found = run(
            sql.SQL("insert into {} select {} from {} b join only {} t on {}").format(
                self._filled, chosen, _BASE, self._table, self._same(self._keys, origins, "b")
            )
        ).rowcount
        run(sql.SQL("drop table {}").format(_BASE))
        _prove(self._bulk, found, len(states))

    def _like(
        self,
        name: sql.Identifier,
        columns: Sequence[str],
        more: Iterable[tuple[str, str]] = (),
    ) -> None:
        """A table of ours with these columns, and ``more`` under other names; it is empty."""
        owned = self.guard is not None and name is self._filled
        temporary = sql.SQL("unlogged" if owned else "temp")
        chosen = [*more, *((column, column) for column in columns)]
        self._connection.execute(
            sql.SQL("create {} table {} as select {} from only {} with no data").format(
                temporary,
                name,
                sql.SQL(", ").join(
                    sql.SQL("{} as {}").format(self._plain(column), sql.Identifier(other))
                    for column, other in chosen
                ),
                self._table,
            )
        )

    def _plain(self, column: str) -> sql.Composable:
        """A column without its domain, whose checks would run where it is filled."""
        if self.guard is None:
            return sql.Identifier(column)
        if column in self.guard.hidden:
            raise RestoreError(
                f"table {self._bulk.relation.shown}: the checks of types in column {column} call"
                " functions, which would run with a superuser's rights",
                "Restore the backup by itself, without its log.",
            )
        return sql.SQL("{}::{}").format(sql.Identifier(column), sql.SQL(self.guard.plain[column]))

    def _same(self, ours: Sequence[str], theirs: Sequence[str], alias: str) -> sql.Composed:
        return sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(sql.Identifier("t", one), sql.Identifier(alias, other))
            for one, other in zip(ours, theirs, strict=True)
        )


class _WholeRows:
    """A table whose rows have no key: equal ones are counted, and values compared as text."""

    def __init__(
        self, connection: Connection, bulk: Bulk, guard: Guard | None, _number: int
    ) -> None:
        self.guard = guard
        self._connection = connection
        self._bulk = bulk
        self._table = _table(bulk)

    def take(self) -> None:
        """Delete as many equal rows as went."""
        if self._bulk.gone:
            self._delete()

    def give(self) -> None:
        """Write as many as came."""
        _write(self._connection, self._bulk, self.guard)

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
    """As the log writes values: a cast of each of them to text may write something else."""
    return sql.SQL("row({})::text").format(_names(columns))


def _write(connection: Connection, bulk: Bulk, guard: Guard | None) -> None:
    if guard is None or not bulk.came:
        _copy(connection, _table(bulk), _names(bulk.relation.columns), bulk.came)
    else:
        write_rows(connection, _table(bulk), bulk.relation.columns, bulk.came, guard)


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
