"""What the snapshot before holds of a cluster: the backups that an incremental one goes on from."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgpack

from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.postgres.physical.paths import (
    MANIFEST,
    MOST_INCREMENTALS,
    WAL,
    goes_on_from,
    shown_lsn,
    split,
)
from kryonix_backup.sources.postgres.physical.tally import Tally

_SPOOL_BYTES = 8 << 20  # in memory; the rest waits in a file


class Earlier:
    """
    The entries of the snapshot before, kept aside, and whether a backup can go on from them.

    ``unusable`` says why not, and is empty where it can; the next backup is then number ``next``.
    Close it to drop them.
    """

    def __init__(self, since: Iterable[Entry]) -> None:
        self._spool = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 - closed by close
        self._tally = Tally()
        self._starts: list[int] = []  # of each backup, in the spool
        pack = msgpack.Packer(use_bin_type=True).pack
        for entry in since:
            if self._tally.add(entry):
                self._starts.append(self._spool.tell())
            self._spool.write(pack(tuple(entry)))
        self.next = self._tally.metas[-1].get("number", 0) + 1 if self._tally.metas else 0
        self.unusable = self._reason()
        numbers = [meta.get("number") for meta in self._tally.metas]
        self._base = 0 if self.unusable else numbers.index(goes_on_from(self.next))

    def close(self) -> None:
        """Drop what was kept aside."""
        self._spool.close()

    @property
    def meta(self) -> Mapping[str, Any]:
        """What is known of the backup that the next one goes on from."""
        return self._tally.metas[self._base]

    def entries(self) -> Iterator[Entry]:
        """That backup and what it needs, in order."""
        return islice(self._from(0), sum(list(self._tally.counts.values())[: self._base + 1]))

    def manifest(self) -> Iterator[bytes]:
        """
        What the server has to know of that backup, in the form of a backup manifest.

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
        count = list(self._tally.counts.values())[self._base]
        for entry in islice(self._from(self._starts[self._base]), count):
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
        if self.next > MOST_INCREMENTALS:
            return f"there were {MOST_INCREMENTALS} incremental backups since the last full one"
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
