"""The files in a tar stream as a PostgreSQL server makes it, one after the other."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from kryonix_backup.errors import SourceError
from kryonix_backup.model import EntryKind
from kryonix_backup.sources.postgres.dumping.reading import Pieces

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(_BLOCK)
_KINDS = {
    tarfile.REGTYPE: EntryKind.FILE,
    tarfile.AREGTYPE: EntryKind.FILE,
    tarfile.DIRTYPE: EntryKind.DIRECTORY,
}


class Member(NamedTuple):
    """One file of the archive; ``size`` bytes of content follow it in the stream."""

    path: bytes
    kind: EntryKind
    size: int
    mode: int


class Archive:
    """A tar stream; the content of a member is read, or passed over, before the next one."""

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._stream = Pieces(pieces)
        self._left = 0  # of the present member
        self._padding = 0

    def members(self) -> Iterator[Member]:
        """Every member in the order of the stream; raises SourceError where it is cut short."""
        while True:
            self._skip(self._left + self._padding)
            header = self._exactly(_BLOCK)
            if header in (b"", _END):
                self._drain()
                return
            yield self._member(header)

    def readinto(self, view: memoryview) -> int:
        """The next bytes of the present member; 0 at its end."""
        if not self._left:
            return 0
        count = self._stream.readinto(view[: self._left])
        if not count:
            raise SourceError("the server's archive ends inside a file")
        self._left -= count
        return count

    def _member(self, header: bytes) -> Member:
        try:
            found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise SourceError(f"the server's archive has an unknown header: {error}") from error
        if found.type not in _KINDS:
            raise SourceError(f"the server's archive holds {found.name!r}, of no known kind")
        self._left = found.size if found.isreg() else 0
        self._padding = -self._left % _BLOCK
        path = found.name.encode("utf-8", "surrogateescape").removeprefix(b"./").rstrip(b"/")
        return Member(path, _KINDS[found.type], self._left, found.mode & 0o777)

    def _skip(self, count: int) -> None:
        view = memoryview(bytearray(min(count, 1 << 16)))
        while count:
            taken = self._stream.readinto(view[: min(count, len(view))])
            if not taken:
                raise SourceError("the server's archive ends inside a file")
            count -= taken
        self._left = self._padding = 0

    def _exactly(self, count: int) -> bytes:
        """So many bytes; nothing at all at the end of the stream."""
        out = bytearray(count)
        view, have = memoryview(out), 0
        while have < count:
            taken = self._stream.readinto(view[have:])
            if not taken and have:
                raise SourceError("the server's archive ends inside a header")
            if not taken:
                return b""
            have += taken
        return bytes(out)

    def _drain(self) -> None:
        view = memoryview(bytearray(1 << 16))
        while self._stream.readinto(view):
            pass
