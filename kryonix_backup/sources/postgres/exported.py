"""One moment of a database that several connections and programs can look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from psycopg import sql

from kryonix_backup.sources.postgres.address import Address
from kryonix_backup.sources.postgres.session import Connection, connected

_BEGIN = "begin isolation level repeatable read read only"


class Exported(NamedTuple):
    """A snapshot that lasts as long as its context, and the server's version as a number."""

    name: str
    version: int


@contextmanager
def exported(address: Address) -> Iterator[tuple[Connection, Exported]]:
    """
    A snapshot, and a connection that looks at it.

    Another connection holds it, so that an error of the one that reads does not end it for the
    programs.
    """
    with connected(address) as holder, connected(address) as connection:
        holder.execute(_BEGIN)
        row = holder.execute("select pg_export_snapshot()").fetchone()
        assert row is not None
        connection.execute(_BEGIN)
        connection.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(row[0])))
        yield connection, Exported(row[0], connection.info.server_version)
