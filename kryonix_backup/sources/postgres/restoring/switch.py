"""Two databases of one server that change names, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.errors import RestoreError, SourceMissing, WouldOverwrite
from kryonix_backup.model import RestoreId
from kryonix_backup.sources.postgres.server.address import Address, slot_name
from kryonix_backup.sources.postgres.server.session import Connection, connected, translated

_MAINTENANCE = ("postgres", "template1")  # one of them is there; nobody renames what he is in
_NAME_BYTES = 63
_MARK = "kryonix-backup restore"
_TRIES = 50
_BETWEEN_TRIES_S = 0.1


class Switch:
    """
    The names of one restore's databases: the new one, and the one that is set aside.

    A comment on the new database says how far it has come; whoever goes on in another process
    reads it there.
    """

    def __init__(self, address: Address, restore: RestoreId, clock: Clock | None = None) -> None:
        self._address = address
        self._restore = restore
        self._clock = SystemClock() if clock is None else clock
        ending = restore.rpartition("-")[2]
        room = _NAME_BYTES - len(f"__before_{ending}")
        start = address.database.encode()[:room].decode("utf-8", "ignore")
        self.new = f"{start}__new_{ending}"
        self.before = f"{start}__before_{ending}"

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """A connection to a database of the same server that is not concerned."""
        try:
            with connected(self._address.of(self._maintenance(_MAINTENANCE[0]))) as connection:
                yield connection
        except SourceMissing:
            with connected(self._address.of(self._maintenance(_MAINTENANCE[1]))) as connection:
                yield connection

    def is_there(self, connection: Connection, database: str) -> bool:
        """Whether there is a database of that name."""
        found = connection.execute("select from pg_database where datname = %s", (database,))
        return found.fetchone() is not None

    def mark(
        self, connection: Connection, state: str, comment: str | None = None, limit: int = -1
    ) -> None:
        """
        Say on the new database how far it has come.

        ``comment`` and the ``limit`` of its connections are what it is given in the end.
        """
        text = f"{_MARK} {self._restore}: {state}\n{limit}\n{comment or ''}"
        self._comment(connection, self.new, text)

    def state(self, connection: Connection) -> str | None:
        """What `mark` said last; None where the new database is not there or not ours."""
        said = self._marked(connection, self.new)
        return None if said is None else said[0]

    def drop(self, connection: Connection, database: str) -> None:
        """Drop a database of this restore, with whoever is connected to it."""
        if self.is_there(connection, database):
            self._end_sessions(connection, database)
            self._drop_subscriptions(connection, database)
            connection.execute(sql.SQL("drop database {}").format(sql.Identifier(database)))

    def commit(self, *, overwrite: bool) -> None:
        """Put the new database in place, and let people in; one that is in place already stays."""
        with self.connected() as connection:
            occupied = self.is_there(connection, self._address.database)
            if self.is_there(connection, self.new):
                if occupied and not overwrite:
                    raise WouldOverwrite(f"{self._address.shown} was made while it was restored")
                self._change_names(connection, occupied=occupied)
            elif not occupied:
                raise RestoreError(f"nothing was loaded for {self._address.shown}")
            self._hand_over(connection)

    def roll_back(self) -> None:
        """Give the old database its name again, let people in, and drop the new one."""
        database = self._address.database
        with self.connected() as connection:
            if self.is_there(connection, self.before):
                if self.is_there(connection, database):
                    self._shut(connection, database)
                    with connection.transaction():
                        self._rename(connection, database, self.new)
                        self._rename(connection, self.before, database)
                else:
                    self._rename(connection, self.before, database)
            if self.state(connection) == "switching" or self.is_there(connection, self.new):
                self._open(connection, database)
            self.drop(connection, self.new)

    def finish(self) -> None:
        """Drop what `roll_back` would need, and our slot that kept the old database's log."""
        with self.connected() as connection:
            if not self.is_there(connection, self.before):
                return
            self._end_sessions(connection, self.before)
            connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
                " where database = %s and slot_name = %s and not active",
                (self.before, slot_name(self._address.database)),
            )
            self.drop(connection, self.before)

    # ------------------------------------------------------------------ their steps

    def _maintenance(self, name: str) -> str:
        return name if name != self._address.database else _MAINTENANCE[1]

    def _marked(self, connection: Connection, database: str) -> tuple[str, str, str] | None:
        """State, limit and comment, where a database has our mark."""
        text = self._comment_of(connection, database)
        start = f"{_MARK} {self._restore}: "
        if text is None or not text.startswith(start):
            return None
        state, limit, comment = text.removeprefix(start).split("\n", 2)
        return state, limit, comment

    def _hand_over(self, connection: Connection) -> None:
        """What the mark kept for the end; without it an earlier try has done that."""
        database = self._address.database
        said = self._marked(connection, database)
        if said is None:
            return
        connection.execute(
            sql.SQL("alter database {} connection limit {}").format(
                sql.Identifier(database), sql.Literal(int(said[1]))
            )
        )
        self._comment(connection, database, said[2] or None)

    def _drop_subscriptions(self, connection: Connection, database: str) -> None:
        """One that subscribes to another server is not dropped; the slot there stays."""
        found = connection.execute(
            "select subname from pg_subscription s join pg_database d on d.oid = s.subdbid"
            " where d.datname = %s",
            (database,),
        ).fetchall()
        if not found:
            return
        connection.execute(
            sql.SQL("alter database {} with allow_connections true connection limit 0").format(
                sql.Identifier(database)
            )
        )
        with connected(self._address.of(database)) as inside:
            for (name,) in found:
                for change in ("disable", "set (slot_name = none)"):
                    inside.execute(
                        sql.SQL("alter subscription {} {}").format(
                            sql.Identifier(name), sql.SQL(change)
                        )
                    )
                inside.execute(sql.SQL("drop subscription {}").format(sql.Identifier(name)))
        self._end_sessions(connection, database)

    def _change_names(self, connection: Connection, *, occupied: bool) -> None:
        database = self._address.database
        if not occupied:
            self._end_sessions(connection, self.new)
            self._rename(connection, self.new, database)
            return
        self._shut(connection, database)
        try:
            self._end_sessions(connection, self.new)
            with connection.transaction():
                self._rename(connection, database, self.before)
                self._rename(connection, self.new, database)
        except psycopg.Error:
            self._open(connection, database)
            raise

    def _shut(self, connection: Connection, database: str) -> None:
        """Let nobody in, and show out who is in."""
        connection.execute(
            sql.SQL("alter database {} allow_connections false").format(sql.Identifier(database))
        )
        self._end_sessions(connection, database)

    def _open(self, connection: Connection, database: str) -> None:
        if self.is_there(connection, database):
            connection.execute(
                sql.SQL("alter database {} allow_connections true").format(sql.Identifier(database))
            )

    def _end_sessions(self, connection: Connection, database: str) -> None:
        for _ in range(_TRIES):
            found = connection.execute(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = %s",
                (database,),
            ).fetchone()
            if found is None or not found[0]:
                return
            self._clock.sleep(_BETWEEN_TRIES_S)
        raise RestoreError(
            f"sessions in {database} of {self._address.host} do not end",
            "See pg_stat_activity; end them, then go on with --resume.",
        )

    def _rename(self, connection: Connection, old: str, new: str) -> None:
        connection.execute(
            sql.SQL("alter database {} rename to {}").format(
                sql.Identifier(old), sql.Identifier(new)
            )
        )

    def _comment(self, connection: Connection, database: str, text: str | None) -> None:
        connection.execute(
            sql.SQL("comment on database {} is {}").format(
                sql.Identifier(database), sql.Literal(text)
            )
        )

    def _comment_of(self, connection: Connection, database: str) -> str | None:
        with translated(self._address):
            row = connection.execute(
                "select shobj_description(oid, 'pg_database') from pg_database where datname = %s",
                (database,),
            ).fetchone()
        return row[0] if row is not None else None
