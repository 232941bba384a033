"""One process at a time follows a database's log, in the pauses between its bursts too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from kryonix_backup.errors import AlreadyRunning
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.session import Connection

_TURN = int.from_bytes(b"kryonix")  # of an advisory lock, which each database has of its own
# One that is gone without a word, with its machine, must not keep others out for hours.
_ALIVE = """
select set_config(name, value, false) from (values
    ('tcp_keepalives_idle', '60'), ('tcp_keepalives_interval', '15'),
    ('tcp_keepalives_count', '4'), ('idle_session_timeout', '0')) wanted(name, value)
where name in (select name from pg_settings)
"""
_HOLDER = """
select pid from pg_locks
where locktype = 'advisory' and granted and objsubid = 1
  and database = (select oid from pg_database where datname = current_database())
  and (classid::int8 << 32) + objid::int8 = %s
"""


@contextmanager
def turn(connection: Connection, address: Address) -> Iterator[None]:
    """
    Be the only one to follow the log; raises AlreadyRunning.

    It is given back before the connection closes, whose end the server learns of some time later.
    """
    connection.execute(_ALIVE)
    row = connection.execute("select pg_try_advisory_lock(%s)", (_TURN,)).fetchone()
    if row is None or not row[0]:
        raise AlreadyRunning(
            f"another process follows the log of {address.shown}, as process {holder(connection)}"
            " of the server"
        )
    try:
        yield
    finally:
        with suppress(psycopg.Error):  # gone, and the lock with it
            connection.execute("select pg_advisory_unlock(%s)", (_TURN,))


def holder(connection: Connection) -> int | None:
    """The server's process of who follows the log of this connection's database."""
    row = connection.execute(_HOLDER, (_TURN,)).fetchone()
    return row[0] if row is not None else None
