"""Wrong and missing keys, and objects that were carried from one tenant to another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kryonix_backup.errors import (
    ConfigError,
    Damaged,
    FormatUnsupported,
    KeyRefused,
    RepositoryExists,
    RepositoryMissing,
    SecretMissing,
    UsageError,
)
from tests.integration import trees
from tests.integration.command import Command, Outcome

pytestmark = pytest.mark.service


class Town:
    """Two tenants, acme and beta, with a passphrase and a repository each."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.users = {
            name: Command.with_passphrase(work / f"home-{name}") for name in ("acme", "beta")
        }
        self.snapshots = {}
        for number, name in enumerate(self.users):
            trees.grow(work / f"tree-{name}", Random(number), small=5, large_mib=1)
            words = ["--source", f"docs=files://{work / f'tree-{name}'}"]
            self.run(name, "tenant", "add", name, "--region", self.region(name), *words)
            report = self.users[name].report("backup", name)
            self.snapshots[name] = report["snapshot"]

    def run(self, user: str, *words: str, expect: int | None = 0, **how: Any) -> Outcome:
        """A run with a user's passphrase."""
        return self.users[user].run(*words, expect=expect, **how)

    def region(self, name: str) -> str:
        """The option that names a tenant's region."""
        return f"primary=file://{self.repository(name)}"

    def repository(self, name: str) -> Path:
        """Where a tenant's repository is."""
        return self.work / f"repository-{name}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """The two tenants, made once."""
    return Town(tmp_path_factory.mktemp("town"))


@pytest.fixture
def town(built: Town, tmp_path: Path) -> Iterator[Town]:
    """The two tenants, each test's own: what a test does to a repository is undone."""
    for name in built.users:
        shutil.copytree(built.repository(name), tmp_path / name)
    yield built
    for name in built.users:
        shutil.rmtree(built.repository(name))
        shutil.copytree(tmp_path / name, built.repository(name))
        # Or the audit chain tells that it was set back.
        shutil.rmtree(built.users[name].home / "anchors", ignore_errors=True)


READING = [
    ("snapshots",),
    ("verify",),
    ("ls",),
    ("cat", "latest", "docs/x"),
    ("diff", "latest"),
    ("restore", "--to", "docs=files:///tmp/kryonix-never"),
    ("backup",),
]


def _of(command: tuple[str, ...], tenant: str) -> list[str]:
    return [command[0], tenant, *command[1:]]


def test_a_wrong_passphrase_opens_nothing(town: Town) -> None:
    wrong = {"KRYONIX_PASSPHRASE": "something else"}
    words = [_of(command, "acme") for command in READING]

    outcomes = town.users["acme"].run_each(words, env=wrong, expect=KeyRefused.exit_code)

    for refused in outcomes:
        assert "tenant acme" in refused.message
        assert "KRYONIX_PASSPHRASE" in refused.hint
    assert not Path("/tmp/kryonix-never").exists()


def test_every_way_to_lack_a_key_is_told_apart(town: Town, tmp_path: Path) -> None:
    short, empty = tmp_path / "short", tmp_path / "empty"
    short.write_bytes(b"x" * 31)
    empty.write_bytes(b"\n")
    none = {"KRYONIX_PASSPHRASE": ""}
    cases = [
        (none, "no passphrase, key file or key store is set for tenant acme"),
        ({**none, "KRYONIX_KEY_FILE": str(short)}, f"{short} holds fewer than 32 bytes"),
        ({**none, "KRYONIX_PASSPHRASE_FILE": str(empty)}, f"{empty} is empty"),
        ({**none, "KRYONIX_PASSPHRASE_FILE": str(tmp_path / "none")}, "No such file"),
        ({**none, "KRYONIX_KEY_FILE": str(tmp_path)}, "Is a directory"),
    ]
    for env, said in cases:
        missing = town.run("acme", "backup", "acme", env=env, expect=SecretMissing.exit_code)
        assert said in missing.message
    both = {"KRYONIX_KEY_FILE": str(short)}
    town.run("acme", "backup", "acme", env=both, expect=UsageError.exit_code)


def test_no_tenant_opens_another_ones_repository(town: Town) -> None:
    there = ["--region", town.region("acme")]
    beta_key = {"KRYONIX_PASSPHRASE": town.users["beta"].secret["KRYONIX_PASSPHRASE"]}

    as_beta = town.run("beta", "snapshots", "beta", *there, expect=KeyRefused.exit_code)
    town.run("acme", "snapshots", "acme", *there, env=beta_key, expect=KeyRefused.exit_code)
    # The right passphrase under another name: the keys are sealed for acme.
    renamed = town.run("acme", "snapshots", "beta", *there, expect=KeyRefused.exit_code)

    assert "tenant beta" in as_beta.message
    assert "tenant beta" in renamed.message


def test_a_region_in_use_is_not_given_to_another_tenant(town: Town) -> None:
    source = ["--source", f"docs=files://{town.work / 'tree-beta'}"]
    add = ["tenant", "add", "gamma", "--region", town.region("acme"), *source]

    town.run("beta", *add, expect=RepositoryExists.exit_code)
    town.run("acme", *add, expect=ConfigError.exit_code)
    # On a machine that knows of no tenant, with the passphrase of the repository.
    bare = town.users["acme"].elsewhere(town.work / "bare")
    bare.run(*add, expect=RepositoryExists.exit_code)

    assert not list((town.work / "bare").glob("tenants/*"))


@pytest.mark.parametrize("kind", ["snapshots", "index", "packs", "keys"])
def test_another_tenants_objects_are_refused_under_any_name(town: Town, kind: str) -> None:
    """Beta's objects in acme's bucket, under their own names and under those of acme's."""
    acme, beta = town.repository("acme"), town.repository("beta")
    foreign = [path for path in (beta / kind).rglob("*") if path.is_file()]
    own = [path for path in (acme / kind).rglob("*") if path.is_file()]
    for path in foreign:
        copy = acme / path.relative_to(beta)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)

    planted = town.run("acme", "verify", "acme", "--level", "data", expect=None)
    for path in foreign:
        (acme / path.relative_to(beta)).unlink()
    shutil.copy(foreign[0], own[0])
    replaced = town.run("acme", "verify", "acme", "--level", "data", expect=None)
    out = town.work / f"out-{kind}"
    restored = town.run("acme", "restore", "acme", "--to", f"docs=files://{out}", expect=None)

    refusals = {Damaged.exit_code, KeyRefused.exit_code}
    assert replaced.code in refusals, replaced
    assert own[0].name in replaced.message + replaced.out, "the object is named"
    if kind == "index" and restored.code == 0:
        # An index only says where things are: the packs' own directories say it too.
        mine = trees.state(town.work / "tree-acme")
        assert trees.differences(trees.state(out), mine) == []
    else:
        assert restored.code in refusals, restored
        assert not out.exists(), "nothing was restored from it"
    assert planted.code in {0, *refusals}, planted
    if planted.code:
        assert foreign[0].name in planted.message + planted.out


def test_a_renamed_snapshot_is_not_taken_for_another_one(town: Town) -> None:
    folder = town.repository("acme") / "snapshots"
    old = town.snapshots["acme"]
    new = "20991231t235959z" + old[16:]
    shutil.copy(folder / old, folder / new)

    listed = town.run("acme", "snapshots", "acme")
    latest = town.run("acme", "ls", "acme", expect=Damaged.exit_code)
    verified = town.users["acme"].report("verify", "acme", expect=Damaged.exit_code)

    assert f"snapshots/{new}" in listed.err, "it is passed over, and that is told"
    assert new not in listed.out
    assert f"snapshots/{new}" in latest.message
    assert [each["object"] for each in verified["damage"]] == [f"snapshots/{new}"]
    town.run("acme", "ls", "acme", old)


def test_a_newer_format_is_left_alone(town: Town) -> None:
    described = town.repository("acme") / "format.json"
    described.chmod(0o600)
    plain = json.loads(described.read_text())
    described.write_text(json.dumps({**plain, "version": 2}))
    before = trees.state(town.repository("acme"))

    words = [_of(command, "acme") for command in READING]
    for newer in town.users["acme"].run_each(words, expect=FormatUnsupported.exit_code):
        assert "format 2" in newer.message
        assert "newer kryonix-backup" in newer.hint

    assert trees.state(town.repository("acme")) == before


def test_a_repository_that_is_not_mounted_is_not_started_anew(town: Town) -> None:
    shutil.rmtree(town.repository("acme"))
    missing = town.run("acme", "backup", "acme", expect=RepositoryMissing.exit_code)
    town.repository("acme").mkdir()
    empty = town.run("acme", "backup", "acme", expect=RepositoryMissing.exit_code)

    assert str(town.repository("acme")) in missing.message
    assert str(town.repository("acme")) in empty.message
    assert not list(town.repository("acme").iterdir())
