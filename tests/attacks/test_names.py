"""Names, links and prefixes that try to lead from one tenant to another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kryonix_backup.errors import (
    ConfigError,
    InvalidName,
    InvalidUrl,
    KeyRefused,
    ObjectMissing,
    RepositoryExists,
    StoreDenied,
)
from kryonix_backup.model import RegionName, SourceName, TenantId, Tier
from kryonix_backup.sdk.isolation import isolate_tenant
from kryonix_backup.sdk.tenants import add_tenant, connect, show_tenant
from kryonix_backup.settings import PRIMARY, RegionSettings, SourceSettings, TenantSettings
from kryonix_backup.storage.registry import open_store
from kryonix_backup.storage.residency import ANYWHERE
from kryonix_backup.testing.s3_servers import S3Server

HOSTILE = ["../beta", "..", ".", "", "/", "beta/", "acme/../beta", "ACME", "Beta", "bet\u0430",
           "beta\n", "beta\0", "a" * 41, "-beta", "beta-", "b_eta", "b.eta", "%62eta",
           "bet a"]  # fmt: skip


class Machine:
    """Tenants in directories side by side, all with one key."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "key").write_bytes(bytes(range(32)))
        self.env = {"KRYONIX_HOME": str(root / "home"), "KRYONIX_KEY_FILE": str(root / "key")}

    def settings(self, name: str, where: str | None = None) -> TenantSettings:
        files = self.root / f"files-{name}"
        files.mkdir(exist_ok=True)
        (files / "own").write_text(f"of {name}")
        return TenantSettings(
            TenantId(name),
            Tier("standard"),
            (RegionSettings(PRIMARY, where or f"file://{self.root / 'regions' / name}"),),
            (SourceSettings(SourceName("docs"), f"files://{files}"),),
        )

    def add(self, name: str, where: str | None = None) -> None:
        add_tenant(self.settings(name, where), env=self.env).client.backup()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.add("beta")
    return made


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tenant_id_reaches_nothing(machine: Machine, name: str) -> None:
    before = sorted(path.relative_to(machine.root) for path in machine.root.rglob("*"))
    region = RegionSettings(PRIMARY, f"file://{machine.root / 'regions/beta'}")

    for attempt in (
        lambda: connect(name, env=machine.env),
        lambda: connect(name, regions=[region], env=machine.env),
        lambda: show_tenant(name, env=machine.env),
        lambda: TenantSettings.from_plain(machine.settings("x").to_plain() | {"id": name}),
    ):
        with pytest.raises(InvalidName):
            attempt()

    after = sorted(path.relative_to(machine.root) for path in machine.root.rglob("*"))
    assert [path for path in after if "files-x" not in str(path)] == before


def test_a_link_to_bs_repository_is_still_bs(machine: Machine) -> None:
    link = machine.root / "regions/acme"
    link.symlink_to(machine.root / "regions/beta")

    with pytest.raises(ConfigError, match="has the address of region primary of tenant beta"):
        machine.add("acme")
    elsewhere = machine.env | {"KRYONIX_HOME": str(machine.root / "another-home")}
    with pytest.raises(RepositoryExists, match="does not open"):
        add_tenant(machine.settings("acme"), env=elsewhere)
    assert connect("beta", env=machine.env).verify().status == "ok"


def test_a_repository_that_is_exchanged_for_a_link_to_bs(machine: Machine) -> None:
    machine.add("acme")
    mine = machine.root / "regions/acme"
    mine.rename(machine.root / "regions/moved")
    mine.symlink_to(machine.root / "regions/beta")

    client = connect("acme", env=machine.env)
    for attempt in (client.snapshots, client.backup, client.verify):
        with pytest.raises(KeyRefused, match="not the repository of acme"):
            attempt()


@pytest.mark.parametrize("folder", ["packs", "index", "snapshots"])
def test_a_folder_that_is_exchanged_for_a_link_to_bs(machine: Machine, folder: str) -> None:
    """A write is never led out of the repository."""
    machine.add("acme")
    theirs = machine.root / "regions/beta" / folder
    before = sorted(theirs.rglob("*"))
    mine = machine.root / "regions/acme" / folder
    mine.rename(machine.root / "moved")
    mine.symlink_to(theirs)
    (machine.root / "files-acme/new").write_text("something new to store")

    with pytest.raises((StoreDenied, ObjectMissing), match=f"object {folder}/"):
        connect("acme", env=machine.env).backup()

    assert sorted(theirs.rglob("*")) == before


def test_case_is_not_folded_into_another_tenant(machine: Machine) -> None:
    """On a file system that folds case, ``Beta`` and ``beta`` would be one directory."""
    (machine.root / "regions/Beta").symlink_to(machine.root / "regions/beta")
    elsewhere = machine.env | {"KRYONIX_HOME": str(machine.root / "another-home")}
    where = f"file://{machine.root / 'regions/Beta'}"

    with pytest.raises(RepositoryExists):
        add_tenant(machine.settings("acme", where), env=elsewhere)


@pytest.mark.service
def test_prefixes_that_begin_alike_are_two_tenants(machine: Machine, seaweedfs: S3Server) -> None:
    seaweedfs.make_bucket("attack-shared")
    env = machine.env | seaweedfs.root.environment()
    settings = {
        name: machine.settings(name, seaweedfs.url("attack-shared", name))
        for name in ("acme", "acme-2")
    }
    clients = {name: add_tenant(each, env=env).client for name, each in settings.items()}
    for client in clients.values():
        client.backup()

    stores = {name: open_store(each.primary, env, ANYWHERE) for name, each in settings.items()}
    names = {name: {info.name for info in store.list("")} for name, store in stores.items()}
    for name, client in clients.items():
        assert len(client.snapshots()) == 1
        ids = [snapshot.id for snapshot in client.snapshots()]
        assert {f"snapshots/{each}" for each in ids} == {
            each for each in names[name] if each.startswith("snapshots/")
        }
    for hostile in ("../acme-2/format.json", "/acme-2/format.json", "acme-2//x"):
        with pytest.raises(InvalidName):
            stores["acme"].get(hostile)
    operator = {f"KRYONIX_PRIMARY_ADMIN_{k.removeprefix('AWS_')}": v
                for k, v in seaweedfs.root.environment().items()}  # fmt: skip
    with pytest.raises(ConfigError, match="cannot be one tenant's alone"):
        isolate_tenant(settings["acme"], env=env | operator)


@pytest.mark.parametrize("prefix", ["../beta", "a/../beta", "%2e%2e/beta", "a//b", ".beta"])
def test_a_hostile_prefix_is_no_address(machine: Machine, prefix: str) -> None:
    region = RegionSettings(PRIMARY, f"s3://shared/{prefix}?endpoint=http://127.0.0.1:1")

    with pytest.raises(InvalidUrl):
        add_tenant(replace(machine.settings("acme"), regions=(region,)), env=machine.env)


def test_a_region_may_not_be_named_like_an_operator() -> None:
    plain = {"name": "primary-admin", "url": "s3://acme"}

    with pytest.raises(InvalidName, match="ends in -admin"):
        RegionSettings.from_plain(plain)
    assert RegionSettings.from_plain({**plain, "name": "admin"}).name == RegionName("admin")
