"""From a snapshot to the files of a cluster: data directories, and the WAL on top."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from kryonix_backup.errors import RestoreError, ValidationFailed
from kryonix_backup.model import Blob, Entry, EntryKind
from kryonix_backup.sources.postgres.physical.paths import checked, shown_lsn, wal_file
from kryonix_backup.sources.postgres.physical.programs import Account
from kryonix_backup.sources.postgres.physical.tally import Tally
from kryonix_backup.sources.source import Content, LoadReport, Log

_ONLY_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


def write_backups(content: Content, folder: Path, account: Account) -> tuple[Tally, LoadReport]:
    """Write every backup of a snapshot below a folder; raises ValidationFailed where one is cut."""
    tally, count, size = Tally(), 0, 0
    for entry, pieces in content.items():
        tally.add(entry)
        size += _write(entry, pieces, folder / os.fsdecode(checked(entry.path)), account)
        count += 1
    if not tally.whole:
        raise ValidationFailed("the snapshot does not hold every file of the cluster")
    return tally, LoadReport(count, size, ())


def _write(entry: Entry, pieces: Iterable[Blob], path: Path, account: Account) -> int:
    mode, size = int(entry.meta["mode"]), 0
    if entry.kind is EntryKind.DIRECTORY:
        path.mkdir()
        path.chmod(mode)
        account.give(path)
        return 0
    file = os.open(path, _ONLY_NEW, mode)
    try:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                written = os.write(file, view)
                size += written
                view = view[written:]
        account.give(file)
    finally:
        os.close(file)
    if size != entry.size:
        raise ValidationFailed(f"{entry.text} came with {size} bytes instead of {entry.size}")
    return size


def write_wal(log: Log, folder: Path, timeline: int, segment: int, account: Account) -> datetime:
    """
    Put a log's WAL where the server looks for it, beside what the backup brought; its ``until``.

    Raises ValidationFailed where it is not the continuation of the backup.
    """
    writer = _WalWriter(folder, timeline, segment, log.after, account)
    try:
        for header, pieces in log.segments:
            writer.go_on(header.start)
            for piece in pieces:
                writer.write(piece)
            if writer.at != header.end:
                raise ValidationFailed(
                    f"segment {header.number} of the log ends at {shown_lsn(writer.at)} instead of"
                    f" {shown_lsn(header.end)}"
                )
    finally:
        writer.close()
    return log.until


class _WalWriter:
    """
    Cuts a stream of WAL into its files.

    Files from before the backup's end are not written; the last of those that came with the backup
    goes on in the log, and what both hold must be the same.
    """

    def __init__(
        self, folder: Path, timeline: int, segment: int, after: int, account: Account
    ) -> None:
        self.at = -1
        self._folder = folder
        self._timeline = timeline
        self._segment = segment
        self._after = after
        self._first = after - after % segment
        self._account = account
        self._file = -1
        self._known = False

    def go_on(self, start: int) -> None:
        """The next segment begins there."""
        before = self._after if self.at < 0 else self.at
        if start > before or start < self.at:
            raise ValidationFailed(f"the log has a gap before {shown_lsn(start)}")
        self.at = start

    def write(self, piece: Blob) -> None:
        """Take the next bytes."""
        view = memoryview(piece)
        while view:
            count = min(len(view), self._segment - self.at % self._segment)
            if self.at >= self._first:
                self._put(view[:count])
            self.at += count
            view = view[count:]
            if self.at % self._segment == 0:
                self.close()

    def close(self) -> None:
        """End the present file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _put(self, view: memoryview) -> None:
        if self._file < 0:
            self._open()
        offset = self.at % self._segment
        both = min(len(view), self._after - self.at) if self._known else 0
        if both > 0 and os.pread(self._file, both, offset) != view[:both]:
            raise ValidationFailed(
                f"the log and the backup do not agree at {shown_lsn(self.at)}: one is of another"
                " server, or of this one before it was put back"
            )
        while view:
            written = os.pwrite(self._file, view, offset)
            offset += written
            view = view[written:]

    def _open(self) -> None:
        path = self._folder / wal_file(self._timeline, self.at, self._segment)
        self._known = path.exists()
        if not self._known and self.at % self._segment:
            raise RestoreError(f"the backup lacks the WAL before {shown_lsn(self.at)}")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.truncate(self._file, self._segment)
        self._account.give(self._file)
