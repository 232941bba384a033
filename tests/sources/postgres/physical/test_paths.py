from __future__ import annotations

import pytest

from kryonix_backup.errors import UnsafePath
from kryonix_backup.model import sort_key
from kryonix_backup.sources.postgres.physical.paths import (
    backup_name,
    checked,
    goes_on_from,
    shown_lsn,
    split,
    wal_file,
)


def test_backups_sort_in_the_order_they_were_made() -> None:
    names = [backup_name(number) for number in range(1000)]

    assert names[:2] == [b"full", b"incremental-000001"]
    assert names == sorted(names, key=sort_key)


def test_however_many_were_made_few_are_needed_and_the_one_before_has_them() -> None:
    def needed(number: int) -> list[int]:
        return [number, *needed(goes_on_from(number))] if number else [0]

    for number in range(1, 2000):
        assert goes_on_from(number) in needed(number - 1)
        assert len(needed(number)) <= 12


def test_a_path_is_of_a_backup_and_in_a_data_directory() -> None:
    assert split(b"full/base/1/2") == (b"full", b"base/1/2")
    assert split(b"full") == (b"full", b"")


@pytest.mark.parametrize("path", [b"/etc/passwd", b"full/../x", b"full//x", b"full/./x", b"a\0b"])
def test_a_path_that_leads_elsewhere_is_refused(path: bytes) -> None:
    with pytest.raises(UnsafePath):
        checked(path)


def test_files_of_the_wal_are_named_as_the_server_names_them() -> None:
    assert wal_file(1, 0x0_0100_0000, 1 << 24) == "000000010000000000000001"
    assert wal_file(2, 0x1_FF00_0028, 1 << 24) == "0000000200000001000000FF"
    assert wal_file(1, 0x1_4000_0000, 1 << 30) == "000000010000000100000001"
    assert shown_lsn(0x1_FF00_0028) == "1/FF000028"
