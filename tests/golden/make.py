"""
Makes the golden repository of the present format: `python -m tests.golden.make FORMAT`.

It is run once for a variant, before its release, and never again: what is in `tests/golden/1/` was
written by the first versions and must be read by every later one. It leaves what is there already
as it is. The tree has what the format has a form for: codecs, frames of several
chunks, a list of chunks that is chunks itself, a tree with nodes, holes, links, names that are no
text, two snapshots, a journal, an intent.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kryonix_backup.backup.run import back_up_source, begin, publish
from kryonix_backup.browse.listing import filled, list_entries
from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.crypto.seal import Kind
from kryonix_backup.crypto.stores.root import master_from
from kryonix_backup.events import quiet
from kryonix_backup.model import MIB, BackupKind, EntryKind, Phase, SourceName, TenantId, Tier
from kryonix_backup.repository.content import refs_of
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import Snapshot
from kryonix_backup.restore.plan import RestoreRequest, plan_restore
from kryonix_backup.restore.run import begin_restore, run_phase
from kryonix_backup.settings import (
    PRIMARY,
    RegionSettings,
    RootKey,
    Secret,
    SourceSettings,
    TenantSettings,
)
from kryonix_backup.sources.files.tree import FilesSource
from kryonix_backup.storage.filesystem import FilesystemStore

HERE = Path(__file__).resolve().parent
TENANT = TenantId("golden")
ROOTS = {
    "passphrase": RootKey(passphrase=Secret("the golden passphrase ä")),
    "key-file": RootKey(key_file=Secret(bytes(range(48)))),
    "keyring": RootKey(passphrase=Secret("the golden passphrase of a keyring")),
}
SOURCES = {"files": "adaptive", "mobile": "brotli:5", "raw": "store"}


def _write(path: Path, data: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def make_tree(root: Path) -> None:
    """The first state."""
    chance = random.Random(1)
    _write(root / "random.bin", chance.randbytes(9000), 0o600)
    _write(root / "text.txt", b"".join(b"line %d of a text\n" % n for n in range(3000)))
    _write(root / "same.txt", b"".join(b"line %d of a text\n" % n for n in range(3000)))
    _write(root / "empty", b"")
    # 70 chunks of one MiB that are all the same: a list too long to stand in its entry.
    _write(root / "zeros", bytes(70 * MIB))
    _write(root / "script", b"#!/bin/sh\n", 0o4755)
    os.mkdir(os.fsencode(root) + b"/n\xffme")
    _write(Path(os.fsdecode(os.fsencode(root) + b"/n\xffme/\xfe.dat")), b"no text for a name")
    _write(root / "deep" / "er" / "and" / "deeper" / "ä ö ü.txt", b"deep")
    (root / "link").symlink_to("deep/er")
    (root / "nowhere").symlink_to("/no/such/thing")
    os.link(root / "text.txt", root / "zz-hard")
    os.mkfifo(root / "pipe")
    with (root / "sparse").open("wb") as sparse:
        for offset in (1 * MIB, 3 * MIB):
            sparse.seek(offset)
            sparse.write(chance.randbytes(4096))
        sparse.truncate(4 * MIB)
    for number in range(700):  # several leaves, and a node above them
        _write(root / "many" / f"{number:04d}", b"%d" % (number % 7))
    _settle(root)


def change_tree(root: Path) -> None:
    """The second state."""
    (root / "same.txt").unlink()
    _write(root / "text.txt", (root / "text.txt").read_bytes() + b"one more line\n")
    _write(root / "many" / "0450x", b"inserted")
    (root / "random.bin").chmod(0o640)
    for name in ("text.txt", "many/0450x", "many/.", "."):
        _date(os.fsencode(root / name))  # what did not change keeps its ctime, and is not read


def _settle(root: Path) -> None:
    for folder, names, files in os.walk(os.fsencode(root), topdown=False):
        for name in (*names, *files, b"."):
            _date(os.path.join(folder, name))


def _date(path: bytes) -> None:
    when = 1_700_000_000_000_000_000 + len(os.path.basename(path)) * 1_000_000_007
    os.utime(path, ns=(when, when), follow_symlinks=False)


class _LaterClock(SystemClock):
    """The machine's clock a minute later: files that were just written then count as settled."""

    def now(self) -> datetime:
        return super().now() + timedelta(minutes=1)


def settings(tree: Path) -> TenantSettings:
    """The golden tenant with its sources, one for each way of compressing."""
    sources = tuple(
        SourceSettings(SourceName(name), f"files://{tree}/{name}", compression=compression)
        for name, compression in SOURCES.items()
    )
    return TenantSettings(
        TENANT, Tier("standard"), (RegionSettings(PRIMARY, "file:///golden"),), sources
    )


def back_up(repository: Repository, tree: Path, kind: BackupKind, clock: Clock) -> Snapshot:
    """A snapshot of every source."""
    tenant = settings(tree)
    session = begin(repository, kind, clock)
    results = [
        back_up_source(repository, session, source, FilesSource(source, clock), quiet, clock)
        for source in tenant.sources
    ]
    return publish(repository, session, results, tenant, clock).snapshot


def described(repository: Repository, snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    """Every entry of a snapshot with the digest of its content, as JSON can say it."""
    reader = repository.reader()
    for listed in list_entries(repository, snapshot):
        entry = listed.entry
        row: dict[str, Any] = {
            "source": listed.source,
            "path": entry.path.hex(),
            "kind": entry.kind.value,
            "size": entry.size,
            "mode": entry.meta["mode"],
            "mtime": entry.meta["mtime"],
        }
        if "target" in entry.meta:
            row["target"] = entry.meta["target"].hex()
        if entry.kind is EntryKind.FILE:
            digest = hashlib.sha256()
            pieces = (reader.read(ref.chunk) for ref in refs_of(entry, reader.read))
            for piece in filled(entry, pieces):
                digest.update(piece)
            row["sha256"] = digest.hexdigest()
        yield row


def digest(rows: list[dict[str, Any]]) -> str:
    """One digest of every row."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _expected(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is checked in: the digest of all rows, and those that people may want to look at."""
    shown = [row for row in rows if not bytes.fromhex(row["path"]).startswith(b"many/")]
    return {"entries": len(rows), "digest": digest(rows), "rows": shown}


def make(target: Path, root: RootKey, tree: Path) -> None:
    """One repository, with what its snapshots hold beside it."""
    clock = _LaterClock()
    repository = Repository.create(
        FilesystemStore(target / "repository"), TENANT, master_from(root), clock
    )
    make_tree(tree / "files")
    for name in ("mobile", "raw"):
        _write(tree / name / "layer", b"".join(b"%s %d\n" % (name.encode(), n) for n in range(700)))
        _settle(tree / name)
    snapshots = [back_up(repository, tree, BackupKind.FULL, clock)]
    change_tree(tree / "files")
    snapshots.append(back_up(repository, tree, BackupKind.INCREMENTAL, clock))
    plan = plan_restore(
        repository, RestoreRequest(to={name: f"files://{tree}/back/{name}" for name in SOURCES}),
        clock,
    )  # fmt: skip
    begin_restore(repository, plan)
    for phase in Phase:
        run_phase(repository, plan, phase, quiet, clock)
    # An intent of maintenance that has nothing to delete, as a later version will write it.
    repository._keep(Kind.INTENT, f"intents/{plan.restore}", {"packs": []})
    expected = {
        "restore": plan.restore,
        "snapshots": {each.id: _expected(list(described(repository, each))) for each in snapshots},
    }
    (target / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


def main(number: str) -> None:
    """Make every variant of a format that is not there."""
    for name, root in ROOTS.items():
        target = HERE / number / name
        if target.exists():  # a golden repository is made once
            continue
        target.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as scratch:
            make(target, root, Path(scratch))
        shutil.rmtree(target / "repository" / "tmp", ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
