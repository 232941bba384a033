from __future__ import annotations

import os
from pathlib import Path

import pytest

from kryonix_backup.model import Problem
from kryonix_backup.sources.files.metadata import (
    MetadataWriter,
    Owners,
    Tally,
    beside,
    describe,
    differences,
    differing_xattrs,
    open_mode,
    read_xattrs,
)
from tests.sources.files.engine import ROOT, as_ordinary_user, write

NOBODYS = 123_456


def _writer() -> MetadataWriter:
    return MetadataWriter((os.geteuid(), os.getegid()), Tally())


def test_owners_are_known_by_name_where_there_is_one() -> None:
    owners = Owners()

    assert owners.describe(0, 0) == {"uid": 0, "gid": 0, "user": "root", "group": "root"}
    assert owners.describe(NOBODYS, NOBODYS) == {"uid": NOBODYS, "gid": NOBODYS}
    assert owners.here({"uid": 77, "gid": 78, "user": "root", "group": "root"}) == (0, 0)
    unknown = {"uid": 77, "gid": 78, "user": "no-such-user", "group": "no-such-group"}
    assert owners.here(unknown) == (77, 78)
    assert owners.here({"uid": 77, "gid": 78}) == (77, 78)


def test_what_is_told_once_is_counted() -> None:
    tally = Tally()
    for path in (b"a", b"b", b"c"):
        tally.add("no", path)
    tally.add("other", b"d")

    assert tally.problems() == [Problem("a", "no (3 entries)"), Problem("d", "other")]


@pytest.mark.parametrize("mode", [0, 0o400, 0o644, 0o2755, 0o4711, 0o1777, 0o7777])
def test_a_new_file_gets_all_of_it(tmp_path: Path, mode: int) -> None:
    owner = NOBODYS if ROOT else os.geteuid()
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY, 0o600)
    meta = {
        "mode": mode,
        "uid": owner,
        "gid": owner if ROOT else os.getegid(),
        "mtime": -123_456_789_012,
        "xattrs": {b"user.one": b"1", b"user.\xc3\xbc": b""},
    }

    writer = _writer()
    writer.of_new(fd, b"file", meta, 0o600)

    info = os.fstat(fd)
    assert writer.tally.problems() == []
    assert differences(info, meta, Owners(), link=False) == []
    os.fchmod(fd, 0o600)  # attributes are read by who may read the file
    assert read_xattrs(fd) == meta["xattrs"]
    found = describe(info, Owners())
    assert {**found, **meta} == {**meta, **found}
    os.close(fd)


def test_an_access_list_comes_back_with_its_mode(tmp_path: Path) -> None:
    acl = bytes.fromhex(
        "0200000001000600ffffffff02000400d204000004000400ffffffff"
        "10000600ffffffff20000000ffffffff"
    )  # fmt: skip
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY, 0o600)
    owner = {"uid": os.geteuid(), "gid": os.getegid(), "mtime": 1}
    meta = {"mode": 0o660, "xattrs": {b"system.posix_acl_access": acl}, **owner}

    writer = _writer()
    writer.of_new(fd, b"file", meta, 0o660)

    assert writer.tally.problems() == []
    assert read_xattrs(fd) == meta["xattrs"]
    assert os.fstat(fd).st_mode & 0o7777 == 0o660
    os.close(fd)


def test_an_existing_directory_gets_exactly_it(tmp_path: Path) -> None:
    os.setxattr(tmp_path, "user.old", b"old")
    os.setxattr(tmp_path, "user.kept", b"old")
    fd = os.open(tmp_path, os.O_RDONLY)
    meta = {"mode": 0o751, "uid": os.geteuid(), "gid": os.getegid(), "mtime": 7}

    _writer().of_existing(fd, b"", {**meta, "xattrs": {b"user.kept": b"new"}})

    assert read_xattrs(fd) == {b"user.kept": b"new"}
    assert differences(os.fstat(fd), meta, Owners(), link=False) == []
    os.close(fd)


def test_an_attribute_that_cannot_be_set_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "file")
    meta = {"mode": 0o644, "uid": os.geteuid(), "gid": os.getegid(), "mtime": 7}
    fd = os.open(path, os.O_RDONLY)

    writer = _writer()
    writer.of_new(fd, b"file", {**meta, "xattrs": {b"nonsense.x": b"", b"user.y": b"y"}}, 0o644)

    (problem,) = writer.tally.problems()
    assert "nonsense.x could not be restored" in problem.reason
    assert read_xattrs(fd) == {b"user.y": b"y"}
    os.close(fd)


def test_every_difference_is_named(tmp_path: Path) -> None:
    path = os.fsencode(write(tmp_path / "file"))
    meta = {"mode": 0o600, "uid": NOBODYS, "gid": NOBODYS, "mtime": 7}

    found = differences(os.stat(path), meta, Owners(), link=False)

    assert found == (["owner", "mode", "time"] if ROOT else ["mode", "time"])
    assert differing_xattrs(path, {}) == []
    assert differing_xattrs(path, {b"user.a": b"1"}) == ["extended attribute user.a"]


def test_attributes_of_a_link_are_its_own(tmp_path: Path) -> None:
    write(tmp_path / "file")
    os.setxattr(tmp_path / "file", "user.a", b"1")
    (tmp_path / "link").symlink_to("file")
    place = os.open(tmp_path, os.O_RDONLY)

    assert read_xattrs(beside(place, b"link")) == {}
    assert read_xattrs(beside(place, b"file")) == {b"user.a": b"1"}
    os.close(place)


def test_an_ordinary_user_is_lent_what_the_owner_lacks() -> None:
    assert open_mode(0o055) == (0o055 if ROOT else 0o755)

    def work() -> None:
        assert open_mode(0o055) == 0o755

    as_ordinary_user(work)


def test_another_users_directory_is_left_as_it_is(open_path: Path) -> None:
    def work() -> None:
        fd = os.open("/", os.O_RDONLY)
        writer = MetadataWriter((-1, -1), Tally())
        writer.of_existing(fd, b"", {"mode": 0o777, "uid": 0, "gid": 0, "mtime": 7})
        (problem,) = writer.tally.problems()
        assert "another user's" in problem.reason

    as_ordinary_user(work)
