"""Where a tenant's cluster is, and whether it is said to be the tenant's own."""

from __future__ import annotations

from typing import NamedTuple, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from kryonix_backup.errors import InvalidUrl
from kryonix_backup.sources.postgres.server.address import Address

SCHEME = "postgresql+physical"
SLOT = "kryonix_physical"
"""The name of our slot; a cluster has one."""

_DATABASE = "postgres"  # every cluster has it, and our beats and questions need one
_OWN = "own"
_FORM = f"Write it like {SCHEME}://user@host:5432/; it names a server, and no database of it."


class ClusterAddress(NamedTuple):
    """A server; ``own`` is the operator's word that every database of it is this tenant's."""

    server: Address
    own: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """
        The address out of ``postgresql+physical://user@host:port/?own=yes&sslmode=…``.

        Raises InvalidUrl.
        """
        try:
            found = urlsplit(url)
        except ValueError as error:
            raise InvalidUrl(f"{url!r} does not name a PostgreSQL server", _FORM) from error
        if found.scheme != SCHEME or found.path not in ("", "/"):
            raise InvalidUrl(f"{url!r} does not name a PostgreSQL server", _FORM)
        parameters = dict(parse_qsl(found.query, keep_blank_values=True))
        own = parameters.pop(_OWN, "no")
        if own not in ("yes", "no"):
            raise InvalidUrl(f"{url!r} says {_OWN}={own}", f"Say {_OWN}=yes, or leave it out.")
        plain = found._replace(
            scheme="postgresql", path=f"/{_DATABASE}", query=urlencode(parameters)
        )
        return cls(Address.parse(plain.geturl()), own == "yes")

    @property
    def shown(self) -> str:
        """The address for messages."""
        return f"{SCHEME}://{self.server.user}@{self.server.host}:{self.server.port}/"
