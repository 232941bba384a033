"""
The database of the demo's tenant: worked with all the time, until somebody forgets a WHERE.

The server is a real PostgreSQL, in a folder of its own that goes away with it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from kryonix_backup.errors import UsageError
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions

_NAME = "acme"
_EVERY_S = 0.01
_MAKE = """
create schema crm;
create table crm.customers (id int primary key, name text not null, balance numeric not null);
create table crm.orders (
    id bigint generated always as identity primary key, customer int not null
    references crm.customers, amount numeric not null, note text, made timestamptz not null);
insert into crm.customers select i, 'customer ' || i, 0 from generate_series(1, 2000) i;
insert into crm.orders (customer, amount, note, made)
    select 1 + i % 2000, i % 997, repeat(md5(i::text), 1 + i % 20), now()
    from generate_series(1, 40000) i;
create index on crm.orders (customer, made);
"""
_ORDER = """
with made as (
    insert into crm.orders (customer, amount, made)
    values (1 + floor(random() * 2000), floor(random() * 900), clock_timestamp()) returning *)
update crm.customers c set balance = c.balance + m.amount from made m where c.id = m.customer
"""
_DIGEST = """
select (select count(*) from crm.orders),
    md5((select string_agg(o::text, ',' order by o.id) from crm.orders o)
     || (select string_agg(c::text, ',' order by c.id) from crm.customers c))
"""


class Digest(NamedTuple):
    """How many orders there are, and what all rows come to."""

    orders: int
    rows: str


class Accident(NamedTuple):
    """The last moment at which all was well, and how it was then."""

    at: datetime
    before: Digest


class DemoDatabase:
    """One tenant's database on a server of its own."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.restored = f"{_NAME}_before"
        self._still = threading.Lock()

    @classmethod
    def start(cls) -> DemoDatabase:
        """The server with an empty database; raises UsageError where it cannot be started."""
        try:
            server = start_postgres(max(versions(), default=0))
        except FileNotFoundError as error:
            raise UsageError(
                "PostgreSQL for the demo is not installed", "Run ./script/setup."
            ) from error
        except RuntimeError as error:
            raise UsageError(
                f"PostgreSQL for the demo does not start: {str(error)[-300:]}",
                "Set TMPDIR to a directory that every user may enter; as root it runs as nobody.",
            ) from error
        with server.connect() as connection:
            connection.execute(f'create database "{_NAME}"'.encode())
        return cls(server)

    @property
    def url(self) -> str:
        """Its address as a source."""
        return self.server.url(_NAME)

    @property
    def url_restored(self) -> str:
        """Where it is restored to."""
        return self.server.url(self.restored)

    def fill(self) -> None:
        """Customers and their orders."""
        with self.server.connect(_NAME) as connection:
            connection.execute(_MAKE.encode())

    @contextmanager
    def worked_with(self) -> Iterator[None]:
        """Orders come in, a hundred a second at most."""
        over = threading.Event()

        def work() -> None:
            with self.server.connect(_NAME) as connection:
                while not over.wait(_EVERY_S):
                    with self._still:
                        connection.execute(_ORDER)

        thread = threading.Thread(target=work, name="orders", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def bad_delete(self) -> Accident:
        """What somebody types, and how all was just before; orders come in again at once."""
        with self.server.connect(_NAME) as connection:
            with self._still:
                before = self.digest(_NAME)
                row = connection.execute("select clock_timestamp()").fetchone()
            connection.execute("delete from crm.orders")
        assert row is not None
        assert isinstance(row[0], datetime)
        return Accident(row[0], before)

    def digest(self, database: str) -> Digest:
        """How a database is at the moment."""
        with self.server.connect(database) as connection:
            row = connection.execute(_DIGEST).fetchone()
        assert row is not None
        return Digest(int(str(row[0])), str(row[1]))
