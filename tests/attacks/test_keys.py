"""A key without its tenant's repository opens nothing, nor a repository without its key."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kryonix_backup.errors import ConfigError, KeyRefused
from kryonix_backup.sdk.client import Client
from kryonix_backup.sdk.tenants import connect
from kryonix_backup.settings import RootKey, Secret, TenantSettings
from tests.attacks.conftest import Town
from tests.attacks.town import Tenant

pytestmark = pytest.mark.service


def crossed(settings: TenantSettings, bucket: Tenant, root: RootKey) -> Client:
    """A tenant's name on the bucket of another, with that bucket's own credentials."""
    regions = (bucket.stolen(),)
    return Client(replace(settings, regions=regions), root, env=bucket.env)


def test_the_key_of_one_tenant_does_not_open_the_bucket_of_another(town: Town) -> None:
    """The very same key: it is the tenant's name, sealed into each wrapping, that differs."""
    for one, other in ((town.a, town.b), (town.b, town.a)):
        client = crossed(one.settings, other, one.root)
        for attempt in (client.snapshots, client.backup, client.verify):
            with pytest.raises(KeyRefused, match=f"not the repository of {one.id}") as caught:
                attempt()
        assert "keys/" in caught.value.message


def test_another_key_does_not_open_it_under_any_name(town: Town) -> None:
    other = RootKey(key_file=Secret(b"another key, of 32 bytes or more"))

    for settings in (town.a.settings, town.b.settings):
        with pytest.raises(KeyRefused):
            crossed(settings, town.b, other).snapshots()


def test_a_tenant_of_both_buckets_reads_its_own_alone(town: Town) -> None:
    """A's settings with a second region in B's bucket: the region is refused, not read."""
    there = replace(town.b.stolen(), name=town.a.settings.regions[1].name)
    both = replace(town.a.settings, regions=(town.a.stolen(), there))
    client = Client(both, town.a.root, env=town.a.env, region=there.name)

    with pytest.raises(KeyRefused):
        client.snapshots()
    with pytest.raises(KeyRefused):
        connect("acme", regions=[there], env=town.a.env)


def test_a_crossed_registry_leads_nowhere(town: Town, tmp_path: Path) -> None:
    """B's file of settings under A's name, as it is and with A's name written into it."""
    home = tmp_path / "home"
    shutil.copytree(Path(town.a.env["KRYONIX_HOME"]), home)
    env = town.a.env | {"KRYONIX_HOME": str(home)}
    theirs = Path(town.b.env["KRYONIX_HOME"]) / "tenants/beta.json"

    shutil.copy(theirs, home / "tenants/acme.json")
    with pytest.raises(ConfigError, match="does not hold the settings of tenant acme"):
        connect("acme", env=env)

    plain = json.loads(theirs.read_bytes()) | {"id": "acme"}
    (home / "tenants/acme.json").write_text(json.dumps(plain))
    forged = connect("acme", env=env | town.b.pair())
    with pytest.raises(KeyRefused, match="not the repository of acme"):
        forged.snapshots()


def test_crossed_credentials_are_not_sent_to_the_other_bucket(town: Town, tmp_path: Path) -> None:
    """B's kept key pair under A's name: it is for another bucket, and is left alone."""
    home = tmp_path / "home"
    shutil.copytree(Path(town.a.env["KRYONIX_HOME"]), home)
    shutil.copy(
        Path(town.b.env["KRYONIX_HOME"]) / "credentials/beta/primary",
        home / "credentials/acme/primary",
    )

    with pytest.raises(ConfigError, match="no S3 credentials"):
        connect("acme", env=town.a.env | {"KRYONIX_HOME": str(home)}).snapshots()
