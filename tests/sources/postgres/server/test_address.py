from __future__ import annotations

import pytest

from kryonix_backup.errors import InvalidUrl
from kryonix_backup.sources.postgres.server.address import Address


def test_an_address_is_read_with_its_odd_signs() -> None:
    address = Address.parse("postgresql://back%20up@db.example.net/tenant%2Fone?sslmode=require")

    assert address.words() == {
        "host": "db.example.net",
        "port": "5432",
        "user": "back up",
        "dbname": "tenant/one",
        "sslmode": "require",
    }
    assert address.of("other").database == "other"
    assert address.of("other").parameters == {"sslmode": "require"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://host/db",
        "postgresql://user@host/",
        "postgresql://user@host",
        "postgresql://user@/db",
        "postgresql://user@host:port/db",
        "postgresql://user@host/db#part",
        "postgresql://user@host/d%0Ab",
        "postgres://user@host/db",
        f"postgresql://user@host/{'x' * 64}",
    ],
)
def test_an_address_without_sense_is_refused(url: str) -> None:
    with pytest.raises(InvalidUrl):
        Address.parse(url)


@pytest.mark.parametrize("name", ["options", "password", "dbname", "host", "service"])
def test_a_parameter_that_would_change_what_is_meant_is_refused(name: str) -> None:
    with pytest.raises(InvalidUrl, match=name):
        Address.parse(f"postgresql://user@host/db?{name}=x")
