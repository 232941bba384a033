"""
A directory is one user's alone, and says so.

Run as root, an account of the tenant's own is tried too; as another user it is refused.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kryonix_backup.errors import ConfigError, NotIsolated, StoreDenied
from kryonix_backup.model import RegionName, TenantId
from kryonix_backup.settings import RegionSettings
from kryonix_backup.storage.accounts import find_account
from kryonix_backup.storage.directory_isolation import DirectoryIsolation
from kryonix_backup.storage.filesystem import FilesystemStore
from kryonix_backup.storage.location import Directory

AS_ROOT = os.geteuid() == 0
ACME = TenantId("acme")


def way(path: Path, *, tenant: TenantId = ACME, system_user: bool = False) -> DirectoryIsolation:
    region = RegionSettings(RegionName("primary"), f"file://{path}")
    return DirectoryIsolation(tenant, region, Directory(path), system_user=system_user)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def passable() -> Iterator[Path]:
    """A directory that every account can get to."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def test_a_new_directory_is_its_users_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        done = way(tmp_path / "new/acme").isolate()
    finally:
        os.umask(before)

    assert mode(tmp_path / "new/acme") == 0o700
    assert (done.made, done.proved, done.remarks) == (("directory",), ("its mode is 0700",), ())
    assert way(tmp_path / "new/acme").isolate().made == ()


def test_one_that_others_can_enter_is_closed_and_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme").chmod(0o755)

    done = way(tmp_path / "acme").isolate()

    assert mode(tmp_path / "acme") == 0o700
    assert done.made == ("mode",)


def test_what_was_made_goes_and_what_was_there_stays(tmp_path: Path) -> None:
    one, two = way(tmp_path / "one"), way(tmp_path / "two")
    made = one.isolate().made, two.isolate().made
    (tmp_path / "two/format.json").write_text("{}")

    one.undo(made[0])
    two.undo(made[1])

    assert not (tmp_path / "one").exists()
    assert (tmp_path / "two/format.json").exists()


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "acme").write_text("")

    with pytest.raises(StoreDenied, match=f"file://{tmp_path}/acme"):
        way(tmp_path / "acme").isolate()


def test_an_account_of_its_own_is_the_only_one_that_enters(
    passable: Path, tenant: TenantId
) -> None:
    path = passable / "region"
    if not AS_ROOT:
        with pytest.raises(ConfigError, match="only root"):
            way(path, tenant=tenant, system_user=True).isolate()
        return
    store = FilesystemStore(path)
    store.create()
    store.put("packs/aa/one", b"before")

    done = way(path, tenant=tenant, system_user=True).isolate()
    store.put("packs/bb/two", b"after")

    account = find_account(tenant)
    assert account is not None
    assert (mode(path), path.stat().st_uid, path.stat().st_gid) == (
        0o750,
        account.uid,
        account.operators,
    )
    assert set(done.made) == {"account", "owner", "mode"}
    assert f"{account.name} can enter it, and another account cannot" in done.proved
    below = [each for each in path.rglob("*") if each.name != "tmp"]
    assert {each.stat().st_uid for each in below} == {account.uid}
    assert {mode(each) & 0o077 for each in below} == {0}
    again = way(path, tenant=tenant).isolate()
    assert (again.made, again.owner) == ((), account.name)


def test_one_that_its_account_cannot_get_to_is_refused_and_undone(
    passable: Path, tenant: TenantId
) -> None:
    (passable / "closed").mkdir(mode=0o700)
    path = passable / "closed/region"
    if not AS_ROOT:
        path.mkdir()
        return
    with pytest.raises(NotIsolated, match="cannot enter its own directory"):
        way(path, tenant=tenant, system_user=True).isolate()

    assert not path.exists()
    assert find_account(tenant) is None
