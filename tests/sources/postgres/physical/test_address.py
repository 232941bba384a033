from __future__ import annotations

import pytest

from kryonix_backup.errors import InvalidUrl
from kryonix_backup.sources.postgres.physical.address import ClusterAddress


def test_an_address_names_a_server_and_no_database() -> None:
    found = ClusterAddress.parse("postgresql+physical://b%40c@host:5433/?sslmode=require&own=yes")

    assert (found.server.host, found.server.port, found.server.user) == ("host", 5433, "b@c")
    assert found.server.database == "postgres"
    assert dict(found.server.parameters) == {"sslmode": "require"}
    assert found.own
    assert found.shown == "postgresql+physical://b@c@host:5433/"


def test_nothing_is_said_to_be_the_tenants_own_by_default() -> None:
    assert not ClusterAddress.parse("postgresql+physical://u@host").own
    assert not ClusterAddress.parse("postgresql+physical://u@host/?own=no").own


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+physical://u@host/db", "postgresql://u@host/", "postgresql+physical://host/",
        "postgresql+physical:///", "postgresql+physical://u@host/?own=1",
        "postgresql+physical://u@host:port/", "postgresql+physical://u@host/?password=x",
        "postgresql+physical://[::1/",
    ],
)  # fmt: skip
def test_what_names_no_server_is_refused(url: str) -> None:
    with pytest.raises(InvalidUrl):
        ClusterAddress.parse(url)
