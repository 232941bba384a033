"""Settings become objects that belong to the tenant and to nobody else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kryonix_backup.clock import SystemClock
from kryonix_backup.errors import CatalogUnusable, KeyRefused, RepositoryExists, RepositoryMissing
from kryonix_backup.model import TenantId
from kryonix_backup.sdk.wiring import (
    create_repositories,
    open_catalog,
    open_repository,
    outbox,
    source_of,
)
from kryonix_backup.settings import RootKey, Secret
from tests.sdk.conftest import Machine

CLOCK = SystemClock()
OTHER = RootKey(key_file=Secret(b"x" * 32))


def test_every_region_gets_a_repository_that_is_taken_up_again(machine: Machine) -> None:
    made = create_repositories(machine.settings, machine.key, machine.env, CLOCK)
    again = create_repositories(machine.settings, machine.key, machine.env, CLOCK)

    assert list(made) == ["primary", "secondary"]
    assert {name: one.id for name, one in made.items()} == {
        name: one.id for name, one in again.items()
    }


@pytest.mark.parametrize("tenant", ["acme", "rival"])
def test_a_region_that_belongs_to_another_is_refused(machine: Machine, tenant: str) -> None:
    create_repositories(machine.settings, machine.key, machine.env, CLOCK)
    key = OTHER if tenant == "acme" else machine.key
    stranger = replace(machine.settings, id=TenantId(tenant))

    with pytest.raises(RepositoryExists, match="does not open"):
        create_repositories(stranger, key, machine.env, CLOCK)


def test_only_the_tenants_key_opens(machine: Machine) -> None:
    with pytest.raises(RepositoryMissing):
        open_repository(machine.settings, machine.region("primary"), machine.key, machine.env)
    create_repositories(machine.settings, machine.key, machine.env, CLOCK)

    with pytest.raises(KeyRefused):
        open_repository(machine.settings, machine.region("primary"), OTHER, machine.env)


def test_a_source_is_known_by_its_url(machine: Machine) -> None:
    assert source_of(machine.settings.sources[0]).parts()


def test_the_catalog_is_made_where_the_home_is(machine: Machine) -> None:
    open_catalog(machine.env).close()

    assert (machine.root / "home" / "catalog.db").exists()
    assert list(outbox(machine.env).letters()) == []


def test_the_catalog_can_be_elsewhere(machine: Machine) -> None:
    elsewhere = f"sqlite:///{machine.root / 'other.db'}"
    open_catalog({**machine.env, "KRYONIX_CATALOG_URL": elsewhere}).close()

    assert (machine.root / "other.db").exists()
    with pytest.raises(CatalogUnusable):
        open_catalog({**machine.env, "KRYONIX_CATALOG_URL": "nonsense"})


def test_a_home_that_cannot_be_made_is_told(machine: Machine) -> None:
    (machine.root / "file").write_text("not a directory")

    with pytest.raises(CatalogUnusable):
        open_catalog({**machine.env, "KRYONIX_HOME": str(machine.root / "file" / "home")})
