"""Where a tenant's database is, and what ours is called there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from kryonix_backup.errors import InvalidUrl

SCHEME = "postgresql"
SCHEMA = "kryonix"
"""The schema that holds what `prepare` makes in the tenant's database."""

# What libpq may be told; nothing here is a secret, and nothing changes what a session means.
_PARAMETERS = frozenset(
    {
        "sslmode", "sslrootcert", "sslcert", "sslkey", "passfile", "connect_timeout",
        "channel_binding", "gssencmode", "target_session_attrs",
    }
)  # fmt: skip
_NAME_BYTES = 63  # of an identifier
_FORM = "Write it like postgresql://user@host:5432/database; the password comes from a passfile."


@dataclass(frozen=True, slots=True)
class Address:
    """A database on a server; the password comes from libpq's passfile, never from here."""

    host: str
    port: int
    user: str
    database: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: str) -> Self:
        """
        The address out of ``postgresql://user@host:port/database?sslmode=…``.

        Raises InvalidUrl.
        """
        try:
            found = urlsplit(url)
            port = found.port or 5432
        except ValueError as error:
            raise InvalidUrl(f"{url!r} does not name a PostgreSQL database", _FORM) from error
        database = unquote(found.path[1:])
        whole = found.scheme == SCHEME and found.hostname and found.username and database
        if not whole or found.fragment or any(ord(sign) < 32 for sign in unquote(url)):
            raise InvalidUrl(f"{url!r} does not name a PostgreSQL database", _FORM)
        if len(database.encode()) > _NAME_BYTES:
            raise InvalidUrl(f"the database's name in {url!r} is longer than 63 bytes", _FORM)
        parameters = dict(parse_qsl(found.query, keep_blank_values=True))
        unknown = set(parameters) - _PARAMETERS
        if unknown:
            known = ", ".join(sorted(_PARAMETERS))
            raise InvalidUrl(
                f"{url!r} holds the parameter {sorted(unknown)[0]!r}", f"It may hold: {known}."
            )
        assert found.hostname
        assert found.username
        return cls(found.hostname, port, unquote(found.username), database, parameters)

    @property
    def shown(self) -> str:
        """The address for messages."""
        return f"{SCHEME}://{self.user}@{self.host}:{self.port}/{self.database}"

    def of(self, database: str) -> Address:
        """Another database of the same server."""
        return Address(self.host, self.port, self.user, database, self.parameters)

    def words(self) -> dict[str, str]:
        """The connection's parameters by libpq's names."""
        return {
            "host": self.host,
            "port": str(self.port),
            "user": self.user,
            "dbname": self.database,
            **self.parameters,
        }


def slot_name(database: str) -> str:
    """
    The name of the slot and of the publication of a database.

    Slot names are unique in a cluster and hold only lower-case letters, digits and underscores, so
    that what is left of an odd name is told apart by a checksum of it.
    """
    plain = re.sub(r"[^a-z0-9_]", "_", database)
    name = f"kryonix_{plain}"
    if plain == database and len(name) <= _NAME_BYTES:
        return name
    from zlib import crc32

    return f"{name[:54]}_{crc32(database.encode()):08x}"
