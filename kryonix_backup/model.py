"""
The values that travel between the parts of the engine, and the names of things.

A *tenant* owns sources and one repository in every region it uses.
A *source* is one service of a tenant, as its adapter sees it; it is dumped in *parts*.
A part is a sorted sequence of *entries*: files, tables, keys or queues.
A *chunk* is a run of an entry's plaintext bytes, named by the keyed hash of its content.
A *snapshot* names everything that one run of a backup saw.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple, NewType

from kryonix_backup.errors import InvalidName

TenantId = NewType("TenantId", str)
Tier = NewType("Tier", str)
SourceName = NewType("SourceName", str)
RegionName = NewType("RegionName", str)
SnapshotId = NewType("SnapshotId", str)
RestoreId = NewType("RestoreId", str)
RepositoryId = NewType("RepositoryId", str)
KeyId = NewType("KeyId", str)
PackId = NewType("PackId", str)
ChainId = NewType("ChainId", str)
ChunkId = NewType("ChunkId", bytes)

Blob = bytes | bytearray | memoryview

KIB = 1 << 10
MIB = 1 << 20
CHUNK_ID_BYTES = 32

_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)
_RUN_ID = re.compile(r"\d{8}t\d{6}z-[0-9a-f]{16}", re.ASCII)


class BackupKind(StrEnum):
    """How much of a source one run reads."""

    FULL = "full"
    INCREMENTAL = "incremental"
    LOG = "log"


class Phase(IntEnum):
    """The phases of a restore, in the order they run; a source's adapter says which is its own."""

    INFRASTRUCTURE_PREPARATION = 1
    DATABASE_RESTORE = 2
    CACHE_AND_SESSION_RESTORE = 3
    FILE_STORAGE_RESTORE = 4
    MESSAGING_RESTORE = 5
    VALIDATION_AND_FINALIZATION = 6

    @property
    def label(self) -> str:
        """The phase's name in reports and in Prefect."""
        return self.name.lower()


class EntryKind(StrEnum):
    """What an entry is; sources other than file trees have only files."""

    FILE = "file"
    DIRECTORY = "dir"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER_DEVICE = "char"
    BLOCK_DEVICE = "block"


class Entry(NamedTuple):
    """
    One thing in a part of a source, with where its content is.

    ``path`` is relative, of raw bytes with ``/`` between names; entries of a part are in the order
    of `sort_key`. ``size`` is in bytes, and counts the holes that ``meta`` may name under
    ``holes``. ``refs`` holds the content's chunks in order, a 32-byte id and a big-endian 32-bit
    length each; when ``indirect`` is true they are chunks of such a list instead. ``stamp`` is what
    tells the source that the entry has not changed, and ``meta`` is whatever the source needs to
    bring it back; both hold only what msgpack can say.
    """

    path: bytes
    kind: EntryKind
    size: int
    refs: bytes = b""
    indirect: bool = False
    stamp: Any = None
    meta: Mapping[str, Any] = {}

    @property
    def content_bytes(self) -> int:
        """The size without the holes: what has to be stored, and needs room when it is restored."""
        holes = self.meta.get("holes")
        return self.size - sum(int(length) for _, length in holes) if holes else self.size

    @property
    def text(self) -> str:
        """The path for people: bytes that are not UTF-8 are written as \\xNN."""
        return self.path.decode("utf-8", "backslashreplace")


def sort_key(path: bytes) -> bytes:
    """The order of entries: name by name, so that everything in a directory follows it."""
    return path.replace(b"/", b"\0")


class LogHeader(NamedTuple):
    """
    What one segment of a source's transaction log holds.

    Segments of a chain are numbered from 0 without a gap, and each ends between two transactions.
    ``start`` and ``end`` are positions of the source's own (LSNs): everything from ``start`` up to
    ``end`` is in it. ``first`` and ``last`` are the least and the greatest commit time in it, and
    ``restorable`` is the time of the last commit whose every consequence is known (the values of
    sequences among them); all three are None where nothing was committed. ``broken`` says what
    happened in it that cannot be replayed: only a full backup leads beyond it. ``meta`` is whatever
    the source needs to use it; ``twice`` in it has the first and the last of times that the
    source's clock, when it was set back, has shown twice: none of them is restorable.
    """

    chain: ChainId
    number: int
    start: int
    end: int
    first: datetime | None
    last: datetime | None
    restorable: datetime | None
    commits: int
    changes: int
    broken: str = ""
    meta: Mapping[str, Any] = {}


class Problem(NamedTuple):
    """Something that kept an entry from being saved or restored as it is."""

    path: str
    reason: str


def check_name(value: str, what: str) -> str:
    """
    The value itself when it may name a tenant, a source or a region.

    Raises InvalidName: names reach bucket names, paths, SQL and URLs, so only a DNS label passes.
    """
    if not _NAME.fullmatch(value):
        shown = ascii(value if len(value) <= 48 else value[:45] + "...")
        raise InvalidName(f"{what} {shown} is not a valid name")
    return value


def tenant_id(value: str) -> TenantId:
    """A checked tenant id; raises InvalidName."""
    return TenantId(check_name(value, "tenant id"))


def new_run_id(moment: datetime) -> str:
    """
    A name for a snapshot or a restore that sorts by time, such as ``20261123t214005z-9f…``.

    The time only helps people and the choice of a parent; nothing relies on the worker's clock.
    The last part is the microsecond, then 44 random bits: two runs of one second sort by time too.
    """
    utc = moment.astimezone(UTC)
    return f"{utc:%Y%m%dt%H%M%Sz}-{utc.microsecond:05x}{secrets.randbits(44):011x}"


def moment_of(run_id: str) -> datetime:
    """The time in front of a `new_run_id`; raises ValueError for anything else."""
    second, _, rest = run_id.partition("-")
    moment = datetime.strptime(second + "+0000", "%Y%m%dt%H%M%Sz%z")
    return moment.replace(microsecond=int(rest[:5], 16))


def is_run_id(value: str) -> bool:
    """Whether `new_run_id` could have made it."""
    if not _RUN_ID.fullmatch(value):
        return False
    try:
        moment_of(value)
    except ValueError:
        return False
    return True
