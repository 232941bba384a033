"""The report names every key and no secret; shares are files that only their owner reads."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from kryonix_backup.crypto.keyring import first_keyring
from kryonix_backup.errors import ConfigError
from kryonix_backup.maintenance.key_care import Schedule
from kryonix_backup.sdk.key_report import key_report, write_shares
from kryonix_backup.settings import Secret
from kryonix_backup.testing.clock import NOON
from kryonix_backup.testing.repositories import ACME

SHARES = [Secret(f"share number {number}") for number in range(3)]


@pytest.mark.parametrize(
    ("days", "due"), [(0, []), (29, []), (30, ["data"]), (90, ["data", "master"])]
)
def test_what_is_due_is_named(days: int, due: list[str]) -> None:
    keyring = first_keyring(NOON)

    report = key_report(ACME, keyring, "kms", Schedule(30, 90, 365), NOON + timedelta(days=days))

    assert report["due"] == due
    assert report["master"] == {
        "store": "kms",
        "since": NOON.isoformat(),
        "due": (NOON + timedelta(days=90)).isoformat(),
    }
    assert {row["key"] for row in report["keys"]} == {each.id for each in keyring.records}
    for record in keyring.records:
        assert record.secret.reveal().hex() not in json.dumps(report)


def test_each_share_is_a_file_of_its_own(tmp_path: Path) -> None:
    paths = write_shares(tmp_path / "new" / "er", ACME, SHARES, 2)

    assert [path.name for path in paths] == [f"acme-share-{n}-of-3.txt" for n in (1, 2, 3)]
    assert [path.read_bytes() for path in paths] == [b"share number %d\n" % n for n in range(3)]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    assert (tmp_path / "new" / "er").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_is_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write_shares(tmp_path, ACME, SHARES, 2)
    assert list(tmp_path.iterdir()) == []
