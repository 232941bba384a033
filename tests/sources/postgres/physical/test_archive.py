"""A tar stream is read member by member, however its bytes arrive, and never cut short unseen."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers, lists

from kryonix_backup.errors import SourceError
from kryonix_backup.model import EntryKind
from kryonix_backup.sources.postgres.physical.archive import Archive


def _tar(*files: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, body in files:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.type = len(body), 0o600, kind
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


def _pieces(raw: bytes, size: int) -> Iterator[memoryview]:
    return (memoryview(raw[at : at + size]) for at in range(0, len(raw), size))


def _read(archive: Archive) -> bytes:
    out, view = b"", bytearray(100)
    while count := archive.readinto(memoryview(view)):
        out += view[:count]
    return out


@given(lists(binary(max_size=2000), max_size=4), integers(1, 3000))
def test_what_was_packed_comes_out(bodies: list[bytes], step: int) -> None:
    raw = _tar(*((f"base/{n}", body) for n, body in enumerate(bodies)))
    archive = Archive(_pieces(raw, step))

    found = [(member.path, member.size, _read(archive)) for member in archive.members()]

    assert found == [(b"base/%d" % n, len(body), body) for n, body in enumerate(bodies)]


def test_what_is_not_read_is_passed_over() -> None:
    archive = Archive(_pieces(_tar(("a", b"x" * 700), ("b", b"yes")), 97))
    members = archive.members()
    next(members)
    archive.readinto(memoryview(bytearray(10)))

    assert next(members).path == b"b"
    assert _read(archive) == b"yes"


def test_a_directory_has_no_content() -> None:
    archive = Archive(_pieces(_tar(("./pg_wal/", b""), kind=tarfile.DIRTYPE), 512))
    (member,) = archive.members()

    assert (member.path, member.kind, member.mode) == (b"pg_wal", EntryKind.DIRECTORY, 0o600)


@pytest.mark.parametrize("length", [100, 600, 1300])
def test_a_stream_that_is_cut_short_is_told(length: int) -> None:
    archive = Archive(_pieces(_tar(("a", b"x" * 2000))[:length], 4096))

    with pytest.raises(SourceError, match="ends inside"):
        [_read(archive) for _ in archive.members()]


def test_what_is_no_header_is_told() -> None:
    raw = bytearray(_tar(("a", b"x")))
    raw[0] ^= 1

    with pytest.raises(SourceError, match="unknown header"):
        next(Archive(_pieces(bytes(raw), 512)).members())


def test_a_link_is_told() -> None:
    raw = _tar(("pg_tblspc/16384", b""), kind=tarfile.SYMTYPE)

    with pytest.raises(SourceError, match="of no known kind"):
        next(Archive(_pieces(raw, 512)).members())
