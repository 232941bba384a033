"""
A tenant's files for the demo: made from a seed, edited, and looked at again.

The tree holds documents, logs, images (as bytes that no codec can shrink), copies of all of them
and a SQLite database, and in `corners/` what file systems allow and backups forget: links of both
kinds, holes, odd modes, names that are not UTF-8.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from kryonix_backup.model import KIB, MIB

_WORDS = (  # noqa: SIM905 - words read better as a text than as a list
    "account agenda amount archive balance branch budget campaign client contract customer date"
    " delivery discount document draft due entry invoice item ledger letter meeting message note"
    " number offer office order owner page patient payment period person plan policy portal price"
    " product profile project proposal quarter quote receipt record region report request review"
    " sale schedule service session signature status store subject supplier support task tax team"
    " tenant ticket total transfer update user value vendor visit week year"
).split()
_LONG_AGO_NS = 1_700_000_000_000_000_000  # November 2023
_NOT_UTF8 = b"caf\xe9.txt"


class _Share(NamedTuple):
    """How much of the tree one kind of file makes up, and how big one of them is."""

    of_tree: float
    smallest: int
    biggest: int


_DOCUMENTS = _Share(0.20, 4 * KIB, 192 * KIB)
_LOGS = _Share(0.20, 2 * MIB, 6 * MIB)
_IMAGES = _Share(0.40, 128 * KIB, 3 * MIB)
_DATABASE = 0.12
_COPIES = 0.08  # the same file kept twice, as people do


class _Writer:
    """Puts files of seeded bytes and times into a tree."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.chance = random.Random(seed)
        vocabulary = self.chance.choices(_WORDS, k=250_000)
        self._prose = " ".join(vocabulary).encode()
        self._tails = [self._log_tail() for _ in range(1000)]

    def _log_tail(self) -> bytes:
        words = self.chance.choices(_WORDS, k=4)
        return json.dumps(
            {"service": words[0], "event": f"{words[1]}.{words[2]}", "of": words[3]}
        ).encode()[1:]

    def sizes(self, share: _Share, tree_bytes: int) -> Iterator[int]:
        """Sizes of files that make up a share of the tree."""
        left = int(share.of_tree * tree_bytes)
        while left > 0:
            size = min(left, self.chance.randint(share.smallest, share.biggest))
            left -= size
            yield size

    def prose(self, size: int) -> bytes:
        """Text, like none before it: paragraphs out of a long one, each with a number."""
        parts, length = [], 0
        while length < size:
            start = self.chance.randrange(len(self._prose) - 600)
            part = b"%08x %s\n" % (self.chance.getrandbits(32), self._prose[start : start + 500])
            parts.append(part)
            length += len(part)
        return b"".join(parts)[:size]

    def log_lines(self, size: int) -> bytes:
        """JSON lines of a service, in the order of their times."""
        lines, length, moment = [], 0, self.chance.randrange(10**9)
        while length < size:
            moment += self.chance.getrandbits(10)
            tail = self._tails[self.chance.getrandbits(20) % 1000]
            line = b'{"t":%d,"request":"%012x",%s\n' % (moment, self.chance.getrandbits(48), tail)
            lines.append(line)
            length += len(line)
        return b"".join(lines)[:size]

    def noise(self, size: int) -> bytes:
        """Bytes that no codec can shrink, as in pictures."""
        return self.chance.randbytes(size)

    def put(self, name: str, body: bytes, mode: int = 0o640) -> Path:
        """Write one file, its folder too."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        path.chmod(mode)
        return path

    def age(self) -> None:
        """Give everything a time of its own in the past, to the nanosecond, folders last."""
        for folder, _, names in os.walk(self.root, topdown=False):
            for path in [*(os.path.join(folder, name) for name in sorted(names)), folder]:
                moment = _LONG_AGO_NS + self.chance.getrandbits(54)
                os.utime(path, ns=(moment, moment), follow_symlinks=False)


def build(root: Path, mib: int, seed: int = 1) -> None:
    """Make the first state of the tenant's files under ``root``, about ``mib`` MiB."""
    root.mkdir(parents=True)
    writer = _Writer(root, seed)
    size = mib * MIB
    for number, length in enumerate(writer.sizes(_DOCUMENTS, size)):
        name = f"documents/{number % 17:02d}-{writer.chance.choice(_WORDS)}/{number:05d}.txt"
        writer.put(name, writer.prose(length), 0o644)
    for number, length in enumerate(writer.sizes(_LOGS, size)):
        writer.put(
            f"logs/2026-{number % 12 + 1:02d}/service-{number:03d}.jsonl", writer.log_lines(length)
        )
    images = [
        writer.put(f"images/{number % 9}/{number:05d}.jpg", writer.noise(length), 0o644)
        for number, length in enumerate(writer.sizes(_IMAGES, size))
    ]
    _keep_twice(writer, images, int(_COPIES * size))
    _build_database(writer, int(_DATABASE * size))
    _build_corners(writer)
    writer.age()


def _keep_twice(writer: _Writer, images: list[Path], size: int) -> None:
    for image in images:
        if size <= 0:
            return
        size -= image.stat().st_size
        writer.put(f"attachments/copy-of-{image.name}", image.read_bytes())


def _build_database(writer: _Writer, size: int) -> None:
    path = writer.put("database/crm.sqlite3", b"", 0o600)
    rows = size // 100
    chance = writer.chance
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, note TEXT)")
        database.executemany(
            "INSERT INTO customer VALUES (?, ?, ?)",
            (
                (
                    number,
                    f"{chance.choice(_WORDS)} {chance.getrandbits(40):010x}",
                    " ".join(chance.choices(_WORDS, k=9)),
                )
                for number in range(rows)
            ),
        )
        database.execute("CREATE INDEX by_name ON customer (name)")
        database.commit()


def _build_corners(writer: _Writer) -> None:
    corners = writer.put("corners/plain.txt", b"plain\n", 0o644).parent
    writer.put("corners/empty", b"", 0o600)
    writer.put("corners/read-only", b"do not touch\n", 0o444)
    writer.put("corners/tool.sh", b"#!/bin/sh\nexit 0\n", 0o755)
    writer.put(f"corners/{'n' * 255}", b"a name as long as they get\n")
    (corners / os.fsdecode(_NOT_UTF8)).write_bytes("café\n".encode("latin-1"))
    (corners / "shared").mkdir()
    (corners / "shared").chmod(0o2775)
    (corners / "empty-folder").mkdir(mode=0o700)
    (corners / "to-plain").symlink_to("plain.txt")
    (corners / "to-nowhere").symlink_to("../gone/for-ever")
    (corners / "same-as-plain").hardlink_to(corners / "plain.txt")
    os.mkfifo(corners / "pipe", 0o620)
    with (corners / "sparse.img").open("wb") as sparse:
        for start in (0, 3 * MIB, 7 * MIB):
            sparse.seek(start)
            sparse.write(writer.noise(64 * KIB))
        sparse.truncate(8 * MIB)


def edit(root: Path, seed: int = 2) -> None:
    """Make the second state out of the first, in place: about 3 % of the files change."""
    chance = random.Random(seed)
    writer = _Writer(root, seed)
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    files = [path for path in files if path.parts[-2] not in {"corners", "database"}]
    for path in chance.sample(files, max(4, len(files) * 3 // 100)):
        _touch_up(writer, path)
    for path in chance.sample(files, max(1, len(files) // 200)):
        path.unlink()
    for number in range(max(1, len(files) // 200)):
        writer.put(f"documents/new/{number:03d}.txt", writer.prose(64 * KIB), 0o644)
    with closing(sqlite3.connect(root / "database/crm.sqlite3")) as database:
        database.execute("UPDATE customer SET note = 'called back' WHERE id BETWEEN 100 AND 900")
        database.commit()
    corners = root / "corners"
    (corners / "tool.sh").chmod(0o700)
    (corners / "to-nowhere").unlink()
    (corners / "to-nowhere").symlink_to("../documents")
    (corners / "empty-folder").rename(corners / "renamed-folder")


def _touch_up(writer: _Writer, path: Path) -> None:
    """Insert a little in the middle, or lengthen a log, as its service would."""
    body = path.read_bytes()
    if path.suffix == ".jsonl":
        path.write_bytes(body + writer.log_lines(len(body) // 20))
        return
    middle = writer.chance.randrange(len(body) + 1)
    path.write_bytes(body[:middle] + writer.prose(1 * KIB) + body[middle:])
