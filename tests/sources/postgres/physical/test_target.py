"""A data directory is proved beside its place, and nothing that is there is touched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kryonix_backup.errors import (
    InvalidUrl,
    RestoreError,
    TargetFull,
    WouldOverwrite,
)
from kryonix_backup.model import Entry, RestoreId
from kryonix_backup.restore.plan import RestoreRequest
from kryonix_backup.sources.postgres.physical.target import PhysicalTarget
from tests.sources.postgres.physical.owned import Owned, account, content_of, given

pytestmark = pytest.mark.service

RESTORE = RestoreId("20261123t214005z-0123456789abcdef")


def _target(directory: Path) -> PhysicalTarget:
    return PhysicalTarget(f"pgdata://{directory}?owner=nobody", RESTORE)


@pytest.fixture
def folder(older: Owned) -> Iterator[Path]:
    with older.directory() as made:
        (made / "server.log").unlink()
        yield made


def test_a_directory_is_loaded_switched_to_and_rolled_back(older: Owned, folder: Path) -> None:
    older.backup()
    items = content_of(older)
    entries = [entry for entry, _ in items]
    data = folder / "deep/data"
    data.mkdir(parents=True)
    data.chmod(0o711)
    target = _target(data)
    target.prepare(iter(entries), 1)
    with pytest.raises(RestoreError, match="nothing was loaded"):
        target.compare(iter(entries))
    with pytest.raises(RestoreError, match="nothing was loaded"):
        target.commit()
    account().give(folder / "deep")
    first = target.load(given(items))
    assert list(data.iterdir()) == []
    assert _target(data).load(given([])) == first  # what an earlier try finished is kept
    assert target.compare(iter(entries)) == []
    target.commit()
    target.commit()
    assert (data / "PG_VERSION").read_text() == f"{older.server.major}\n"
    assert data.stat().st_uid == account().uid
    target.roll_back()
    assert list(data.iterdir()) == []
    assert data.stat().st_mode & 0o777 == 0o711
    assert [path.name for path in data.parent.iterdir()] == ["data"]
    target.roll_back()


def test_a_flipped_byte_in_any_file_is_found(older: Owned, folder: Path) -> None:
    older.backup()
    items = content_of(older)
    at = next(n for n, (entry, _) in enumerate(items) if entry.path.endswith(b"base/1/1259"))
    body = bytearray(items[at][1])
    body[4000] ^= 1
    items[at] = (items[at][0], bytes(body))

    with pytest.raises(RestoreError, match=r"pg_verifybackup failed .*base/1/1259"):
        _target(folder / "data").load(given(items))
    assert not (folder / "data").exists()


def test_what_is_there_is_never_replaced(older: Owned, folder: Path) -> None:
    older.backup()
    entries = [entry for entry, _ in content_of(older)]
    (folder / "data").mkdir()
    (folder / "data/file").touch()

    with pytest.raises(WouldOverwrite, match="is not empty"):
        _target(folder / "data").prepare(iter(entries), 1)
    with pytest.raises(RestoreError, match="mount point"):
        _target(Path("/proc")).prepare(iter(entries), 1)


def test_a_part_of_a_cluster_and_anything_else_is_refused(older: Owned, folder: Path) -> None:
    older.backup()
    entries = [entry for entry, _ in content_of(older)]

    for some in ([], entries[:-1], [Entry(b"data/t", entries[0].kind, 0)]):
        with pytest.raises(RestoreError, match="not every file of a cluster"):
            _target(folder / "data").prepare(iter(some), 1)
    with pytest.raises(TargetFull, match="of room"):
        _target(folder / "data").prepare(iter(entries), 1 << 60)
    with pytest.raises(RestoreError, match="not every file"):
        older.client.restore(
            RestoreRequest(to={"db": f"pgdata://{folder}/data"}, include=("full/base",))
        )


def test_a_server_that_runs_is_not_rolled_back(older: Owned, folder: Path) -> None:
    target = _target(folder / "data")
    staging = folder / f".data.kryonix-restore-{RESTORE}"
    (folder / "data").mkdir()
    (folder / "data/postmaster.pid").touch()
    staging.mkdir()
    (staging / "ready.json").write_text(json.dumps({}))

    with pytest.raises(RestoreError, match="a server runs in"):
        target.roll_back()
    target.finish()
    assert (folder / "data/postmaster.pid").exists()
    assert not staging.exists()


@pytest.mark.parametrize(
    "url",
    [
        "pgdata://host/dir", "pgdata:dir", "pgdata:///", "pgdata:///a?b=c", "pgdata:///a#b",
        "pgdata:///a?owner=", "pgdata:///a%00b", "files:///a",
    ],
)  # fmt: skip
def test_an_address_that_is_no_directory_is_refused(url: str) -> None:
    with pytest.raises(InvalidUrl):
        PhysicalTarget(url, RESTORE)
