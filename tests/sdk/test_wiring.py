"""Settings become objects that belong to the tenant and to nobody else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from kryonix_backup.clock import SystemClock
from kryonix_backup.crypto.keystore import ManagedKeyStore
from kryonix_backup.crypto.stores.registry import open_key_store
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
from kryonix_backup.testing.key_stores import HsmToken, MotoKms
from tests.crypto.stores.contract import new_tenant
from tests.sdk.conftest import Machine
from tests.services.softhsm import kms, softhsm, token

__all__ = ["kms", "softhsm", "token"]

CLOCK = SystemClock()
OTHER = RootKey(key_file=Secret(b"x" * 32))


def test_every_region_gets_a_repository_that_is_taken_up_again(machine: Machine) -> None:
    made = create_repositories(machine.settings, machine.key, machine.held, CLOCK)
    again = create_repositories(machine.settings, machine.key, machine.held, CLOCK)

    assert list(made) == ["primary", "secondary"]
    assert len({one.id for one in [*made.values(), *again.values()]}) == 1  # the same in all


@pytest.mark.parametrize("tenant", ["acme", "rival"])
def test_a_region_that_belongs_to_another_is_refused(machine: Machine, tenant: str) -> None:
    create_repositories(machine.settings, machine.key, machine.held, CLOCK)
    key = OTHER if tenant == "acme" else machine.key
    stranger = replace(machine.settings, id=TenantId(tenant))

    with pytest.raises(RepositoryExists, match="does not open"):
        create_repositories(stranger, key, machine.held, CLOCK)


def test_only_the_tenants_key_opens(machine: Machine) -> None:
    with pytest.raises(RepositoryMissing):
        open_repository(TenantId("acme"), machine.region("primary"), machine.key, machine.held)
    create_repositories(machine.settings, machine.key, machine.held, CLOCK)

    with pytest.raises(KeyRefused):
        open_repository(TenantId("acme"), machine.region("primary"), OTHER, machine.held)


def test_sources_are_imported_ahead_and_what_is_wrong_is_told_later() -> None:
    program = (
        "import sys\n"
        "from kryonix_backup.sdk.wiring import sources_ahead\n"
        "from kryonix_backup.settings import SourceSettings\n"
        "before = 'psycopg' in sys.modules\n"
        "urls = ['ftp://nowhere', 'postgresql://postgres@localhost/db']\n"
        "sources_ahead(SourceSettings('db', url) for url in urls).join()\n"
        "print(before, 'psycopg' in sys.modules)\n"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("False True\n", "")


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


@pytest.mark.service
@pytest.mark.parametrize("kind", ["pkcs11", "kms"])
def test_a_master_in_a_key_store_is_made_once_and_opens_every_region(
    machine: Machine, token: HsmToken, kms: MotoKms, kind: str
) -> None:
    """The KMS is moto's, a mock."""
    root = {"pkcs11": token.root, "kms": kms.root}[kind]
    settings = replace(machine.settings, id=new_tenant())
    store = open_key_store(root, settings.id)
    assert isinstance(store, ManagedKeyStore)

    create_repositories(settings, root, machine.held, CLOCK)
    create_repositories(settings, root, machine.held, CLOCK)

    assert len(store.versions()) == 1
    for region in settings.regions:
        assert open_repository(settings.id, region, root, machine.held)
        with pytest.raises(KeyRefused):
            open_repository(settings.id, region, machine.key, machine.held)
    store.renew()
    assert open_repository(settings.id, settings.primary, root, machine.held)
    store.destroy()
    for region in settings.regions:
        with pytest.raises(KeyRefused):
            open_repository(settings.id, region, root, machine.held)
