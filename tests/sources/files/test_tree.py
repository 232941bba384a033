from __future__ import annotations

import os
from pathlib import Path

import pytest

from kryonix_backup.errors import InvalidUrl, SourceMissing, SourceUnreadable
from kryonix_backup.sources.files.tree import PART, directory_of
from kryonix_backup.testing.sources import items_of
from tests.sources.files.engine import as_ordinary_user, source_of, write


def test_the_one_part_and_no_position(tmp_path: Path) -> None:
    source = source_of(tmp_path)

    assert source.parts() == (PART,)
    assert source.position() == {}
    with pytest.raises(SourceMissing, match="no part 'other'"):
        source.dump("other", None)


def test_a_directory_may_have_any_name(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a ?#%\xff"))
    odd.mkdir()
    write(odd / "file")

    paths = [item.entry.path for item in items_of(source_of(odd).dump(PART, None))]

    assert paths == [b"", b"file"]
    assert directory_of("files:///a%20b%2Fc%FF") == b"/a b/c\xff"
    with pytest.raises(InvalidUrl):
        directory_of("files://server/share")


def test_a_check_tells_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "one")

    findings = source_of(tmp_path).check()

    assert all(finding.passed for finding in findings)
    assert findings[0].evidence == "it holds 1 entries"


def test_a_missing_root_is_said_at_once(tmp_path: Path) -> None:
    write(tmp_path / "file")
    for name, words in (("none", "there is no directory"), ("file", "is not a directory")):
        source = source_of(tmp_path / name)
        with pytest.raises(SourceMissing, match=words):
            source.dump(PART, None)
        (finding,) = source.check()
        assert not finding.passed
        assert finding.mend


def test_a_root_that_cannot_be_listed_is_no_empty_backup(open_path: Path) -> None:
    (open_path / "shut").mkdir(mode=0o300)

    def work() -> None:
        (open_path / "mine").mkdir(mode=0o300)
        for name in ("shut", "mine"):
            source = source_of(open_path / name)
            with pytest.raises(SourceUnreadable, match="cannot be listed: permission denied"):
                source.dump(PART, None)
            assert not source.check()[0].passed

    as_ordinary_user(work)


def test_the_operators_own_path_may_hold_a_link(tmp_path: Path) -> None:
    write(tmp_path / "real" / "file")
    (tmp_path / "link").symlink_to("real")

    paths = [item.entry.path for item in items_of(source_of(tmp_path / "link").dump(PART, None))]

    assert paths == [b"", b"file"]
