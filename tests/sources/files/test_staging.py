from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from kryonix_backup.errors import UnsafePath
from kryonix_backup.sources.files.folders import Handle, open_root
from kryonix_backup.sources.files.staging import (
    LEFT_OUT,
    Before,
    Ledger,
    LoadedDirectories,
    Places,
    write_to,
)
from tests.sources.files.engine import RESTORE, back_up, look_at, restore, target_of, write


def _places(directory: Path) -> Places:
    return Places(os.fsencode(directory), RESTORE)


def test_the_staging_directory_is_for_us_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o2777)
    places = _places(tmp_path)

    staging = places.make_staging()

    assert os.fstat(staging.fd).st_mode & 0o7777 == 0o700
    assert sorted(os.listdir(staging.fd)) == ["before", "tree"]
    again = places.make_staging()
    assert os.fstat(again.fd).st_ino == os.fstat(staging.fd).st_ino


def test_what_was_before_is_noted(tmp_path: Path) -> None:
    os.utime(tmp_path, ns=(5, 5))
    target = open_root(os.fsencode(tmp_path))
    _places(tmp_path).make_staging()
    assert _places(tmp_path).before(target) == Before([], 5)

    deep = tmp_path / "a" / "b"
    _places(deep).make_staging()
    assert _places(deep).before(open_root(os.fsencode(deep))) == Before(
        [os.fsencode(deep), os.fsencode(deep.parent)], None
    )


def test_the_targets_time_comes_back_wherever_making_or_dropping_was_cut_short(
    tmp_path: Path,
) -> None:
    before = Before([], -5_000_000_001)
    for began in (b"", b"tree"):
        os.utime(tmp_path, ns=(0, before.mtime or 0))
        name = tmp_path / os.fsdecode(_places(tmp_path)._telling(before))
        (name / os.fsdecode(began)).mkdir(parents=True)

        _places(tmp_path).make_staging()
        assert _places(tmp_path).before(open_root(os.fsencode(tmp_path))) == before
        (tmp_path / os.fsdecode(_places(tmp_path).staging)).rename(name)
        (name / "before").unlink()
        target_of(tmp_path).roll_back()

        assert os.listdir(tmp_path) == []
        assert tmp_path.stat().st_mtime_ns == before.mtime


def test_an_access_list_of_the_target_is_not_inherited(tmp_path: Path) -> None:
    acl = bytes.fromhex(
        "0200000001000700ffffffff02000700d204000004000500ffffffff"
        "10000700ffffffff20000500ffffffff"
    )  # fmt: skip
    write(tmp_path / "tree" / "file")
    write(tmp_path / "tree" / "sub" / "file")
    snapshot = back_up(tmp_path / "tree")
    target = tmp_path / "target"
    target.mkdir()
    os.setxattr(target, "system.posix_acl_default", acl)

    restore(snapshot, target)

    assert look_at(target) == look_at(tmp_path / "tree")


@pytest.mark.parametrize("kind", ["link", "file"])
def test_only_a_directory_of_our_own_is_used(tmp_path: Path, kind: str) -> None:
    places = _places(tmp_path / "target")
    (tmp_path / "target").mkdir()
    name = tmp_path / "target" / os.fsdecode(places.staging)
    if kind == "link":
        name.symlink_to(tmp_path)
    else:
        name.touch()

    with pytest.raises(UnsafePath):
        places.make_staging()
    with pytest.raises(UnsafePath):
        target_of(tmp_path / "target").prepare([], 0)


@pytest.fixture
def staging(tmp_path: Path) -> Handle:
    return open_root(os.fsencode(tmp_path))


def test_the_ledger_gives_back_what_was_noted(staging: Handle) -> None:
    ledger = Ledger(staging, write=True)
    ledger.add(b"a", b"d" * 32)
    ledger.add(b"b", LEFT_OUT)
    ledger.close()

    reading = Ledger(staging, write=False)
    assert [reading.next(path) for path in (b"a", b"b", b"c")] == [b"d" * 32, LEFT_OUT, None]
    reading.close()
    again = Ledger(staging, write=True)
    assert again.earlier(0, b"a") == b"d" * 32
    assert again.earlier(0, b"other") is None
    again.add(b"a", b"e" * 32)
    assert again.earlier(1, b"b") == LEFT_OUT
    again.close()


def test_loaded_directories_are_read_in_order(staging: Handle) -> None:
    import msgpack

    with write_to(staging, b"directories") as file:
        for path in (b"", b"a", b"a/b", b"a!", b"c"):
            file.write(msgpack.packb([path, {"mode": len(path)}]))

    loaded = LoadedDirectories(staging)

    assert list(loaded.until(b"")) == [(b"", {"mode": 0})]
    assert [path for path, _ in loaded.until(b"a/z")] == [b"a", b"a/b"]
    assert [path for path, _ in loaded.until(b"a!")] == [b"a!"]
    assert [path for path, _ in loaded.until(None)] == [b"c"]
    loaded.close()


def test_our_files_are_private(staging: Handle, tmp_path: Path) -> None:
    write_to(staging, b"note").close()

    assert stat.S_IMODE((tmp_path / "note").stat().st_mode) == 0o600
