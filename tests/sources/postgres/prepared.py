"""A database that is prepared, and what our event triggers write into its log."""

from __future__ import annotations

from typing import Any

import psycopg

from kryonix_backup.sources.postgres.address import Address, slot_name
from kryonix_backup.sources.postgres.message import Beat, Ddl, parse
from kryonix_backup.sources.postgres.preparing import prepare
from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database

_MESSAGES = """
select lsn, data from pg_logical_slot_get_binary_changes(%s, null, null, 'proto_version', '1',
    'publication_names', %s, 'messages', 'true')
where get_byte(data, 0) = ascii('M')
"""


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
        self.connection.close()

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
        found = []
        for _, data in rows:
            assert isinstance(data, bytes)
            # byte, flags, LSN, prefix, length, content
            prefix, _, rest = data[10:].partition(b"\0")
            assert prefix == b"kryonix"
            found.append(parse(rest[4:]))
        return found
