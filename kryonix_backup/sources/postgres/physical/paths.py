"""
How the files of a cluster are named in a snapshot.

    full/…                   the data directory as the full backup gave it
    incremental-000001/…     what the first incremental backup after it gave, and so on
    …/backup_manifest        the server's manifest of that backup; its entry tells of it

Backups are numbered from 0, the full one. Not each goes on from the one before: number n holds what
changed since number n without its lowest bit. So a snapshot names few of them, at most one for each
bit of its number, however many were made.
"""

from __future__ import annotations

from kryonix_backup.errors import UnsafePath

FULL = b"full"
MANIFEST = b"backup_manifest"
WAL = b"pg_wal/"
MOST_INCREMENTALS = 999_999


def backup_name(number: int) -> bytes:
    """What the backup of that number is called in its snapshots."""
    return b"incremental-%06d" % number if number else FULL


def goes_on_from(number: int) -> int:
    """The number of the backup that an incremental one has its changes since."""
    return number & (number - 1)


def split(path: bytes) -> tuple[bytes, bytes]:
    """The backup and the path in the data directory; empty for the directory itself."""
    backup, _, rest = path.partition(b"/")
    return backup, rest


def checked(path: bytes) -> bytes:
    """A path below a data directory; raises UnsafePath."""
    if path.startswith(b"/") or b"\0" in path or {b"..", b".", b""} & set(path.split(b"/")):
        raise UnsafePath(f"{path!r} would be written outside of the data directory")
    return path


def wal_file(timeline: int, lsn: int, segment: int) -> str:
    """The name of the WAL file that a place is in, where files have so many bytes."""
    number = lsn // segment
    each = (1 << 32) // segment
    return f"{timeline:08X}{number // each:08X}{number % each:08X}"


def shown_lsn(lsn: int) -> str:
    """A place in the WAL as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
