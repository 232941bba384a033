"""What the snapshot before holds of a cluster: the backups that an incremental one goes on from."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgpack

from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.postgres.physical.paths import (
    MANIFEST,
    MOST_INCREMENTALS,
    WAL,
    backup_name,
    shown_lsn,
    split,
)
from kryonix_backup.sources.postgres.physical.tally import Tally

_SPOOL_BYTES = 8 << 20  # in memory; the rest waits in a file


class Earlier:
    """
    The entries of the snapshot before, kept aside, and whether a backup can go on from them.

    ``unusable`` says why not, and is empty where it can. Leave its context to drop them.
    """

    def __init__(self, since: Iterable[Entry]) -> None:
        self._spool = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 - closed by close
        self._tally = Tally()
        self._last_at = 0  # where the newest backup begins in the spool
        pack = msgpack.Packer(use_bin_type=True).pack
        for entry in since:
            if self._tally.add(entry):
                self._last_at = self._spool.tell()
            self._spool.write(pack(tuple(entry)))
        self.unusable = self._reason()

    def close(self) -> None:
        """Drop what was kept aside."""
        self._spool.close()

    @property
    def meta(self) -> Mapping[str, Any]:
        """What is known of its newest backup."""
        return self._tally.metas[-1]

    @property
    def next(self) -> bytes:
        """The name of the backup that goes on from it."""
        return backup_name(len(self._tally.names))

    def entries(self) -> Iterator[Entry]:
        """All of it, in order."""
        return self._from(0)

    def manifest(self) -> Iterator[bytes]:
        """
        What the server has to know of its newest backup, in the form of a backup manifest.

        The server looks only at the names, the sizes and the stretch of WAL.
        """
        digest = hashlib.sha256()
        for line in self._lines():
            digest.update(line)
            yield line
        yield b'"Manifest-Checksum": "%s"}\n' % digest.hexdigest().encode()

    def _lines(self) -> Iterator[bytes]:
        yield b'{ "PostgreSQL-Backup-Manifest-Version": 2,\n'
        yield b'"System-Identifier": %s,\n"Files": [' % self.meta["system"].encode()
        between = b"\n"
        for entry in self._from(self._last_at):
            path = split(entry.path)[1]
            if entry.kind is EntryKind.FILE and path != MANIFEST and not path.startswith(WAL):
                yield between + json.dumps({**_named(path), "Size": entry.size}).encode()
                between = b",\n"
        reach = {
            "Timeline": self.meta["timeline"],
            "Start-LSN": shown_lsn(self.meta["start"]),
            "End-LSN": shown_lsn(self.meta["end"]),
        }
        yield b'\n],\n"WAL-Ranges": [\n%s\n],\n' % json.dumps(reach).encode()

    def _reason(self) -> str:
        if not self._tally.whole:
            return "the snapshot before has lost a part of its files"
        if len(self._tally.names) > MOST_INCREMENTALS:
            return f"there are {MOST_INCREMENTALS} incremental backups in a row"
        return ""

    def _from(self, at: int) -> Iterator[Entry]:
        self._spool.seek(at)
        for row in msgpack.Unpacker(self._spool, use_list=False, strict_map_key=False):
            path, kind, *rest = row
            yield Entry(path, EntryKind(kind), *rest)


def _named(path: bytes) -> dict[str, str]:
    try:
        return {"Path": path.decode()}
    except UnicodeDecodeError:
        return {"Encoded-Path": path.hex()}
