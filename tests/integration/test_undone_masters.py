"""An onboarding that is taken back destroys the master that it made alone; in SoftHSM."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pkcs11
import pytest

from kryonix_backup.crypto.keystore import ManagedKeyStore
from kryonix_backup.crypto.stores.location import HsmLocation, parse_key_store
from kryonix_backup.crypto.stores.registry import open_key_store
from kryonix_backup.errors import RepositoryExists
from kryonix_backup.model import RegionName, SourceName, TenantId, Tier
from kryonix_backup.sdk.client import Client
from kryonix_backup.sdk.onboarding import Onboarding, Step
from kryonix_backup.sdk.tenants import add_tenant, list_tenants, remove_tenant
from kryonix_backup.settings import (
    KeySettings,
    RegionSettings,
    RootKey,
    SourceSettings,
    TenantSettings,
)
from kryonix_backup.testing.key_stores import HsmToken
from tests.services.softhsm import softhsm, token

__all__ = ["softhsm", "token"]

pytestmark = pytest.mark.service

ACME, BETA = TenantId("acme"), TenantId("beta")
_numbers = itertools.count()


@dataclass(frozen=True)
class Site:
    """A machine whose tenants have their masters in one token, under labels of this test."""

    root: Path
    token: HsmToken
    label: str

    @property
    def env(self) -> dict[str, str]:
        return {"KRYONIX_HOME": str(self.root / "home"), "KRYONIX_PIN": self.token.pin}

    def settings(self, tenant: TenantId, *, home: str = "", label: str = "") -> TenantSettings:
        """A tenant with one region below ``home``, by default one of its name."""
        url = f"{self.token.url}&label={label or self.label}"
        region = RegionSettings(RegionName("primary"), f"file://{self.root}/{home or tenant}")
        source = SourceSettings(SourceName("files"), f"files://{self.root}/files")
        keys = KeySettings(store=url)
        return TenantSettings(tenant, Tier("standard"), (region,), (source,), keys=keys)

    def root_key(self, settings: TenantSettings) -> RootKey:
        return RootKey.from_environment(self.env, settings.id, settings.keys.store)

    def onboarding(self, settings: TenantSettings, *steps: Step) -> Onboarding:
        """An onboarding that was cut short after these steps."""
        begun = Onboarding(settings, self.root_key(settings), env=self.env)
        for step in steps:
            begun.run(step)
        return begun

    def client(self, settings: TenantSettings) -> Client:
        return Client(settings, self.root_key(settings), env=self.env)

    def masters(self) -> list[str]:
        """The labels of the keys that are in the token, asked past our own code."""
        place = parse_key_store(self.settings(ACME).keys.store or "", ACME)
        assert isinstance(place, HsmLocation)
        with _session(place, self.token.pin) as session:
            found = session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY})
            labels = [str(key[pkcs11.Attribute.LABEL]) for key in found]
        return sorted(label for label in labels if label.startswith(f"{self.label}/"))


@contextmanager
def _session(place: HsmLocation, pin: str) -> Iterator[pkcs11.Session]:
    # Our own code is logged in already, and a login is the process'.
    token = pkcs11.lib(place.module).get_token(token_label=place.token)
    try:
        session = token.open(user_pin=pin)
    except pkcs11.exceptions.UserAlreadyLoggedIn:
        session = token.open()
    try:
        yield session
    finally:
        session.close()


@pytest.fixture
def site(tmp_path: Path, token: HsmToken) -> Site:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/letter.txt").write_text("dear reader")
    return Site(tmp_path, token, f"undone-{next(_numbers)}")


# ------------------------------------------------------------------ it goes


@pytest.mark.parametrize("count", range(2, len(Step) + 1))
def test_a_master_that_opens_nothing_goes_from_the_token(site: Site, count: int) -> None:
    begun = site.onboarding(site.settings(ACME), *list(Step)[:count])
    assert site.masters() == [f"{site.label}/v1"]

    assert begun.undo() == []

    assert site.masters() == []
    assert not (site.root / "acme").exists()


# ------------------------------------------------------------------ it stays


def _stays(site: Site, begun: Onboarding, why: str, kept: TenantSettings) -> None:
    """Taken back, the master is in the token, and the repository opens and gives back its files."""
    (left,) = [each for each in begun.undo() if "master key" in each]

    assert why in left
    assert site.label in left
    assert f"{site.label}/v1" in site.masters()
    client = site.client(kept)
    assert len(client.snapshots()) == 1
    assert client.verify().status == "ok"


def test_a_repository_that_was_made_before_the_master_was_lost_track_of(site: Site) -> None:
    """The tenant was taken on whole; then its settings were forgotten, and the next try fails."""
    settings = site.settings(ACME)
    add_tenant(settings, env=site.env).client.backup()
    remove_tenant("acme", site.env)
    before = site.masters()

    begun = site.onboarding(settings, *Step)
    begun.undo()

    assert site.masters() == before == [f"{site.label}/v1"]
    assert len(site.client(settings).snapshots()) == 1


def test_a_repository_that_came_meanwhile(site: Site) -> None:
    """The run was cut short after the master, and another way was gone on with."""
    settings = site.settings(ACME)
    begun = site.onboarding(settings, Step.ISOLATION, Step.ENCRYPTION)
    Client.onboard(settings, site.root_key(settings), env=site.env).backup()

    _stays(site, begun, "there is a repository in its regions", settings)


def test_a_repository_of_the_same_tenant_at_the_address_of_before(site: Site) -> None:
    """The file of settings was changed between two tries."""
    settings, moved = site.settings(ACME), site.settings(ACME, home="moved")
    site.onboarding(settings, Step.ISOLATION, Step.ENCRYPTION, Step.STORAGE)
    site.client(settings).backup()

    _stays(site, site.onboarding(moved, Step.ISOLATION), "could be removed", settings)


def test_a_repository_of_a_registered_tenant_with_the_same_master(site: Site) -> None:
    begun = site.onboarding(site.settings(ACME), Step.ISOLATION, Step.ENCRYPTION)
    other = site.settings(BETA)
    add_tenant(other, env=site.env).client.backup()

    _stays(site, begun, "it may be that of tenant beta too", other)


def test_a_repository_of_a_tenant_that_is_not_registered_yet_or_any_more(site: Site) -> None:
    begun = site.onboarding(site.settings(ACME), Step.ISOLATION, Step.ENCRYPTION)
    other = site.settings(BETA)
    site.onboarding(other, *Step)
    site.client(other).backup()
    assert list_tenants(site.env) == []

    _stays(site, begun, "it may be that of tenant beta too", other)


def test_where_another_repository_is_it_stays_and_that_is_told(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """What a repository says of its keys is not believed: that could destroy a master."""
    other = site.settings(BETA, label=f"{site.label}-other")
    add_tenant(other, env=site.env)
    remove_tenant("beta", site.env)

    with pytest.raises(RepositoryExists):
        add_tenant(site.settings(ACME, home="beta"), env=site.env)

    assert "there is a repository in its regions" in caplog.text
    assert site.masters() == [f"{site.label}/v1"]
    assert site.client(other).snapshots() == []
    assert list_tenants(site.env) == []


def test_a_version_that_somebody_else_has_made(site: Site) -> None:
    """Another machine, which this one knows nothing of, between the two calls."""
    settings = site.settings(ACME)
    begun = site.onboarding(settings, Step.ISOLATION, Step.ENCRYPTION)
    store = open_key_store(site.root_key(settings), ACME)
    assert isinstance(store, ManagedKeyStore)
    store.renew()

    (left,) = begun.undo()

    assert "versions that another run has made" in left
    assert site.masters() == [f"{site.label}/v1", f"{site.label}/v2"]


def test_where_nobody_can_look_it_stays(site: Site) -> None:
    settings = site.settings(ACME)
    begun = site.onboarding(settings, Step.ISOLATION, Step.ENCRYPTION)
    away = replace(settings.primary, url="s3://acme?endpoint=http://127.0.0.1:1&timeout=0.1",
                   access_key_id="id", secret_access_key=None)  # fmt: skip
    blind = Onboarding(replace(settings, regions=(away,)), site.root_key(settings), env=site.env)

    assert any("primary" in each or "credentials" in each for each in blind.undo())

    assert site.masters() == [f"{site.label}/v1"]
    assert begun.settings == settings


def test_a_journal_of_an_earlier_version_is_taken_back_too(site: Site) -> None:
    begun = site.onboarding(site.settings(ACME), *list(Step)[:3])
    path = site.root / "home/onboarding/acme.json"
    journal = json.loads(path.read_text())
    del journal["made"]["addresses"], journal["steps"]["encryption"]["address"]
    path.write_text(json.dumps(journal))

    assert begun.undo() == []

    assert site.masters() == []
