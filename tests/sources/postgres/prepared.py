"""A database that is prepared, and what our event triggers write into its log."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import psycopg

from kryonix_backup.sources.postgres.decoding import pgoutput
from kryonix_backup.sources.postgres.decoding.message import Beat, Ddl, parse, told
from kryonix_backup.sources.postgres.preparation.preparing import Prepared, Step, plan, prepare
from kryonix_backup.sources.postgres.server.address import Address, slot_name
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database

_MESSAGES = """
select lsn, data from pg_logical_slot_get_binary_changes(%s, null, null, 'proto_version', '1',
    'publication_names', %s, 'messages', 'true')
"""


_OURS = """
select 'publication ' || pubname from pg_publication
union all select 'slot ' || slot_name from pg_replication_slots where database = current_database()
union all select 'event trigger ' || evtname from pg_event_trigger
union all select 'schema ' || nspname from pg_namespace where nspname = 'kryonix'
order by 1
"""


class Tenant:
    """A database, as its owner and as we see it."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.server = server
        self.database = database
        self.url = server.url(quote(database, safe=""))
        self.address = Address.parse(self.url)
        self.slot = slot_name(database)

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """A connection of the superuser."""
        return psycopg.connect(self.url, autocommit=True)

    def run(self, *statements: str) -> list[tuple[object, ...]]:
        """Run statements, each a transaction; the rows of the last one."""
        with self.connect() as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def ours(self) -> list[str]:
        """What of ours is there."""
        return [str(row[0]) for row in self.run(_OURS)]

    def schema(self) -> str:
        """The database as `pg_dump` tells it, ours and all."""
        said = self.server.run("pg_dump", "--schema-only", self.database)
        return "\n".join(
            line for line in said.splitlines() if not line.startswith(("\\restrict", "\\unrest"))
        )

    def prepare(self, *, consent: bool = True) -> Prepared:
        """Prepare it."""
        return prepare(self.address, replica_identity_full=consent)

    def plan(self, *, consent: bool = True) -> list[Step]:
        """What is missing."""
        return plan(self.address, replica_identity_full=consent)

    def drop_slots(self) -> None:
        """A server has few of them."""
        self.run(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
            " where database = current_database() and not active"
        )


class PreparedDatabase:
    """A database of its own, and a connection of a role that owns what it makes."""

    def __init__(self, server: PostgresServer, role: str = "postgres") -> None:
        self.server = server
        self.database = new_database(server)
        self.address = Address.parse(server.url(self.database))
        self.slot = slot_name(self.database)
        self.prepared = prepare(self.address, replica_identity_full=True)
        if role != "postgres":
            self.admin(
                f"do $$ begin create role {role} login; exception when duplicate_object"
                " then null; end $$"
            )
            self.admin(f'grant create on database "{self.database}" to {role}')
            self.admin(f"grant create on schema public to {role}")
        self.connection = server.connect(self.database, role)
        self.warnings: list[str] = []
        self.connection.add_notice_handler(self._hear)
        self.told()

    def __enter__(self) -> PreparedDatabase:
        return self

    def __exit__(self, *ended: object) -> None:
        """A server has few slots, and keeps its log for each of them."""
        self.connection.close()
        self.admin(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
            " where database = current_database()"
        )

    def _hear(self, said: psycopg.errors.Diagnostic) -> None:
        if said.severity == "WARNING":
            self.warnings.append(said.message_primary or "")

    def admin(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser."""
        with self.server.connect(self.database) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def run(self, *statements: str) -> list[Ddl]:
        """Run statements as the role, each a transaction; what was written about them."""
        for statement in statements:
            self.connection.execute(statement)
        return [message for message in self.told() if isinstance(message, Ddl)]

    def one(self, statement: str) -> Ddl:
        """The one message about a statement."""
        (message,) = self.run(statement)
        return message

    def told(self) -> list[Beat | Ddl]:
        """What was written into the log since it was asked for last."""
        with self.server.connect(self.database) as connection:
            rows = connection.execute(_MESSAGES, (self.slot, self.slot)).fetchall()
        found: list[Beat | Ddl] = []
        ours: set[bytes] = set()
        for _, data in rows:
            assert isinstance(data, bytes)
            if data.startswith(b"kryonix\0told\0", 5):
                ours.add(data[1:5])
            elif data[:1] == b"I" and data[1:5] in ours:
                found.append(told(pgoutput.insert(data).new))
            elif data[:1] == b"M":
                # byte, flags, LSN, prefix, length, content
                prefix, _, rest = data[10:].partition(b"\0")
                assert prefix == b"kryonix"
                found.append(parse(rest[4:]))
        return found
