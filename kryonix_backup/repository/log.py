"""
The transaction log of one source: chains of numbered segments, each an object that never changes.

A segment's name is its chain and number, created only where it is free: of two processes that
follow one log, one is told. Its head opens without the rest, so that a plan reads little. A body
too long for one object is kept as chunks in packs, and the segment names those.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from kryonix_backup.crypto.keys import TenantKeys
from kryonix_backup.crypto.seal import (
    HEADER_BYTES,
    TAG_BYTES,
    Header,
    Kind,
    OpenFailed,
    Sealer,
    new_header,
)
from kryonix_backup.errors import AlreadyRunning, Damaged, ObjectExists, ObjectMissing
from kryonix_backup.model import (
    MIB,
    Blob,
    ChainId,
    ChunkId,
    Entry,
    EntryKind,
    LogHeader,
    RepositoryId,
    SourceName,
    is_run_id,
)
from kryonix_backup.repository.codec import Codec, compressor, decompress
from kryonix_backup.repository.content import REF_BYTES, RefList, named_chunks, refs_of
from kryonix_backup.repository.layout import LOGS, log_name
from kryonix_backup.repository.reader import ChunkReader
from kryonix_backup.repository.writer import ChunkWriter, pack_plain
from kryonix_backup.storage.store import ObjectStore

MOST_BODY_BYTES = 64 * MIB
"""Raw bytes of a body that stands in its segment; a longer one is kept as chunks."""

Fetched = TypeVar("Fetched")
Segments = dict[SourceName, dict[ChainId, set[int]]]
"""The numbers of segments that are there, by source and chain."""

_FETCHERS = 4  # each may hold a whole body
_HEAD_AT = HEADER_BYTES + 4
_HEAD_BYTES = 4096  # fetched at first; nearly every head is in them
_MOST_HEAD_BYTES = 16 * MIB
_INLINE, _CHUNKS = "inline", "chunks"
_NUMBER = re.compile(r"\d{8}", re.ASCII)


class Heads(Protocol):
    """The heads of a log's segments: a `LogBook`, or what was read of one."""

    @property
    def source(self) -> SourceName:
        """Whose log it is."""
        ...

    def chains(self) -> dict[ChainId, int]:
        """Every chain, oldest first, with the number of segments that follow each other from 0."""
        ...

    def header(self, chain: ChainId, number: int) -> LogHeader:
        """What a segment holds; raises ObjectMissing and Damaged."""
        ...


@dataclass(frozen=True, slots=True)
class LogBook:
    """One source's chains; `append` makes a segment durable."""

    store: ObjectStore
    keys: TenantKeys
    repository: RepositoryId
    source: SourceName
    reader: Callable[[], ChunkReader]

    def chains(self) -> dict[ChainId, int]:
        """
        Every chain, oldest first, with the number of segments that follow each other from 0.

        A segment beyond a missing one is not counted: nothing leads to it.
        """
        there = list_segments(self.store, self.source).get(self.source, {})
        return {chain: unbroken(numbers) for chain, numbers in there.items()}

    def header(self, chain: ChainId, number: int) -> LogHeader:
        """What a segment holds; raises ObjectMissing and Damaged."""
        return self._head(log_name(self.source, chain, number)).header

    def named(self, chain: ChainId, number: int) -> tuple[LogHeader, list[ChunkId]]:
        """
        What a segment holds, and the chunks of a body that does not stand in it.

        Raises ObjectMissing and Damaged.
        """
        name = log_name(self.source, chain, number)
        head = self._head(name)
        if head.stored == _INLINE:
            return head.header, []
        return head.header, named_chunks(_Opened.of(self, name, self.store.get(name)).spilled())

    def _head(self, name: str) -> _Opened:
        start = self.store.get_range(name, 0, _HEAD_BYTES)
        end = _HEAD_AT + _head_length(start, name)
        if end > len(start):
            start = self.store.get_range(name, 0, end)
        return _Opened.of(self, name, start)

    def segment(self, chain: ChainId, number: int) -> tuple[LogHeader, Iterator[Blob]]:
        """A segment and its body, piece by piece; raises ObjectMissing and Damaged."""
        name = log_name(self.source, chain, number)
        opened = _Opened.of(self, name, self.store.get(name))
        return opened.header, self._body(opened)

    def append(self, header: LogHeader, body: bytes, chunks: bytes = b"") -> None:
        """
        Make a segment durable: with its body, or with the list of chunks that a `Spill` kept.

        Raises AlreadyRunning where a segment of that number is there: another process follows
        this log, and KeyUnusable where the keys were destroyed.
        """
        self.keys.refresh()  # a log is followed for longer than a key may seal
        name = log_name(self.source, header.chain, header.number)
        head = _head_to_bytes(header, _CHUNKS if chunks else _INLINE)
        plain = pack_plain(compressor("zstd:3"), chunks or body)
        try:
            self.store.put(name, _sealed(name, head, plain, self.keys, self.repository))
        except ObjectExists as error:
            raise AlreadyRunning(
                f"another process follows the log of {self.source}: it has written segment"
                f" {header.number} of chain {header.chain}"
            ) from error

    def _body(self, opened: _Opened) -> Iterator[Blob]:
        if opened.stored == _INLINE:
            yield opened.body()
            return
        entry = opened.spilled()
        reader = self.reader()
        for piece in reader.stream(refs_of(entry, reader.read)):
            assert not isinstance(piece, Entry)
            yield piece


def reseal_segment(
    name: str, sealed: bytes, keys: TenantKeys, repository: RepositoryId
) -> bytearray:
    """A segment sealed anew by the tenant's current key; raises Damaged."""
    sealer, body_at = _opener(name, sealed, keys, repository)
    view = memoryview(sealed)
    try:
        head = sealer.open(_HEAD_AT, b"head", view[_HEAD_AT:body_at])
        plain = sealer.open(body_at, b"body", view[body_at:])
    except OpenFailed as error:
        raise Damaged(f"{name} was changed, moved or cut since it was written") from error
    return _sealed(name, head, plain, keys, repository)


def _sealed(
    name: str, head: bytes, plain: Blob, keys: TenantKeys, repository: RepositoryId
) -> bytearray:
    sealing = new_header(Kind.LOG, keys)
    sealer = Sealer(sealing, keys, repository, name)
    body_at = _HEAD_AT + len(head) + TAG_BYTES
    out = bytearray(body_at + len(plain) + TAG_BYTES)
    out[:HEADER_BYTES] = sealing.to_bytes()
    out[HEADER_BYTES:_HEAD_AT] = (len(head) + TAG_BYTES).to_bytes(4)
    view = memoryview(out)
    sealer.seal_into(_HEAD_AT, b"head", head, view[_HEAD_AT:body_at])
    sealer.seal_into(body_at, b"body", plain, view[body_at:])
    return out


def _opener(
    name: str, sealed: bytes, keys: TenantKeys, repository: RepositoryId
) -> tuple[Sealer, int]:
    """What opens a segment, and where its body begins."""
    sealing = Header.from_bytes(sealed, name)
    if sealing.kind is not Kind.LOG:
        raise Damaged(f"{name} is a {sealing.kind.name.lower()}, not a segment of a log")
    body_at = _HEAD_AT + _head_length(sealed, name)
    try:
        return Sealer(sealing, keys, repository, name), body_at
    except Damaged as error:
        raise Damaged(f"{name} does not open: {error.message}") from error


class Spill:
    """A body that is too long for one object, kept as chunks while it comes; see `LogBook`."""

    def __init__(self, writer: ChunkWriter) -> None:
        self._lane = writer.lane("zstd:3")
        self._refs: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Keep the next piece, of at most a few MiB."""
        content = RefList(lambda raw: self._lane.keep([raw])[0])
        for start in range(0, len(piece), MIB):
            part = piece[start : start + MIB]
            content.add(self._lane.keep([part])[0], len(part))
        self._refs.append(content.close()[0])

    def close(self) -> bytes:
        """The list of its chunks, which count when the writer's context was left."""
        return b"".join(self._refs)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A segment whose head was opened."""

    name: str
    header: LogHeader
    stored: str
    sealer: Sealer
    sealed: Blob
    body_at: int

    @classmethod
    def of(cls, book: LogBook, name: str, sealed: bytes) -> _Opened:
        sealer, body_at = _opener(name, sealed, book.keys, book.repository)
        try:
            head = sealer.open(_HEAD_AT, b"head", memoryview(sealed)[_HEAD_AT:body_at])
        except OpenFailed as error:
            raise Damaged(f"{name} was changed, moved or cut since it was written") from error
        header, stored = _head_from_bytes(head, name)
        return cls(name, header, stored, sealer, sealed, body_at)

    def spilled(self) -> Entry:
        """The chunks of a long body, as an entry has them."""
        plain = self.body()
        if len(plain) % REF_BYTES:
            raise Damaged(f"{self.name} has the wrong form")
        return Entry(self.name.encode(), EntryKind.FILE, 0, plain)

    def body(self) -> bytes:
        """What was sealed after the head."""
        try:
            plain = self.sealer.open(self.body_at, b"body", memoryview(self.sealed)[self.body_at :])
        except OpenFailed as error:
            raise Damaged(f"{self.name} was changed, moved or cut since it was written") from error
        length = int.from_bytes(plain[1:9])
        if length > 2 * MOST_BODY_BYTES:
            raise Damaged(f"{self.name} announces {length} bytes, more than any segment holds")
        try:
            return bytes(decompress(Codec(plain[0]), memoryview(plain)[9:], length))
        except (Damaged, ValueError, IndexError) as error:
            raise Damaged(f"{self.name} has the wrong form") from error


def _head_length(sealed: Blob, name: str) -> int:
    length = int.from_bytes(sealed[HEADER_BYTES:_HEAD_AT])
    if len(sealed) < _HEAD_AT or not TAG_BYTES <= length <= _MOST_HEAD_BYTES:
        raise Damaged(f"{name} is cut short")
    return length


def _head_to_bytes(header: LogHeader, stored: str) -> bytes:
    times = {
        name: None if moment is None else moment.isoformat()
        for name, moment in (
            ("first", header.first),
            ("last", header.last),
            ("restorable", header.restorable),
        )
    }
    return json.dumps(
        {**header._asdict(), **times, "meta": dict(header.meta), "stored": stored}
    ).encode()


def _head_from_bytes(raw: bytes, name: str) -> tuple[LogHeader, str]:
    try:
        plain: Mapping[str, Any] = json.loads(raw)
        fields = {field: plain[field] for field in LogHeader._fields}
        for field in ("first", "last", "restorable"):
            fields[field] = None if fields[field] is None else datetime.fromisoformat(fields[field])
        header, stored = LogHeader(**fields), plain["stored"]
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{name} has the wrong form") from error
    if not name.endswith(f"/{header.chain}/{header.number:08d}") or stored not in (
        _INLINE,
        _CHUNKS,
    ):
        raise Damaged(f"{name} has the wrong form")
    return header, stored


def list_segments(store: ObjectStore, source: str = "") -> Segments:
    """The numbers that are there of every source's chains, or of one source's; chains in order."""
    found: Segments = {}
    for info in store.list(f"{LOGS}{source}/" if source else LOGS):
        name, chain, number = (*info.name.removeprefix(LOGS).split("/"), "", "")[:3]
        whole = info.name == f"{LOGS}{name}/{chain}/{number}"
        if whole and is_run_id(chain) and _NUMBER.fullmatch(number):
            chains = found.setdefault(SourceName(name), {})
            chains.setdefault(ChainId(chain), set()).add(int(number))
    return {name: dict(sorted(chains.items())) for name, chains in sorted(found.items())}


def unbroken(numbers: Set[int]) -> int:
    """How many follow each other from 0."""
    count = 0
    while count in numbers:
        count += 1
    return count


def last_header(book: LogBook) -> tuple[LogHeader, LogHeader] | None:
    """The opening and the last segment of the newest chain; None where there is no log yet."""
    chains = [(chain, count) for chain, count in book.chains().items() if count]
    if not chains:
        return None
    chain, count = chains[-1]
    try:
        return book.header(chain, 0), book.header(chain, count - 1)
    except ObjectMissing as error:
        raise Damaged(f"the log of {book.source} lost a segment meanwhile") from error


def headers_of(book: Heads, chain: ChainId, first: int, count: int) -> Iterator[LogHeader]:
    """The headers from the segment ``first`` on, fetched ahead."""
    return fetched_ahead(range(first, count), lambda number: book.header(chain, number))


def fetched_ahead(
    numbers: Iterable[int], fetch: Callable[[int], Fetched], fetchers: int = _FETCHERS
) -> Generator[Fetched]:
    """What ``fetch`` gives for each number, in order, a few of them at once."""
    pool = ThreadPoolExecutor(fetchers, thread_name_prefix="log")
    ahead: deque[Future[Fetched]] = deque()
    try:
        for number in numbers:
            ahead.append(pool.submit(fetch, number))
            if len(ahead) > fetchers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        # Not waited for: one that is given up half-way ends wherever the collector finds it, which
        # may be inside the locks that a thread needs to end.
        pool.shutdown(wait=False, cancel_futures=True)
