"""Small repositories of a source with a transaction log, made by hand."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kryonix_backup.backup.run import back_up_source, begin, publish
from kryonix_backup.model import (
    MIB,
    BackupKind,
    ChainId,
    LogHeader,
    SourceName,
    TenantId,
    Tier,
    new_run_id,
)
from kryonix_backup.repository.log import Spill
from kryonix_backup.repository.repository import Repository
from kryonix_backup.settings import PRIMARY, RegionSettings, SourceSettings, TenantSettings
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.repositories import RecordingStore, new_repository, reopened
from kryonix_backup.testing.sources import MemorySource, Thing

DB, CRM = SourceName("db"), SourceName("crm")
TABLE, OURS = 9, 77


def at(seconds: float) -> datetime:
    """So many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def chain_of(seconds: float) -> ChainId:
    """A chain that began then; always the same."""
    return ChainId(new_run_id(at(seconds))[:-16] + f"{int(seconds):016x}"[-16:])


def framed(*messages: bytes) -> bytes:
    """A body of these messages."""
    return b"".join(struct.pack(">I", len(each)) + each for each in messages)


def relation(oid: int = TABLE, schema: bytes = b"public") -> bytes:
    """A table of one column."""
    columns = struct.pack(">H", 1) + b"\1a\0" + struct.pack(">Ii", 23, -1)
    return b"R" + struct.pack(">I", oid) + schema + b"\0t\0d" + columns


def row(oid: int = TABLE, text: bytes = b"1") -> bytes:
    """One more row."""
    return b"I" + struct.pack(">I", oid) + b"N\0\1t" + struct.pack(">I", len(text)) + text


def transaction(*messages: bytes, end: int = 10) -> bytes:
    """These messages, committed."""
    begun = struct.pack(">cQqI", b"B", end - 1, 0, 9)
    return framed(begun, *messages, struct.pack(">cBQQq", b"C", 0, end - 1, end, 0))


BODY = transaction(relation(), row(), row(text=b"two")) + transaction(row(text=b"3"))


class LoggedSource(MemorySource):
    """A `MemorySource` that stands at a place in a log."""

    def __init__(self, place: int, seconds: float, log: str = "7/8") -> None:
        super().__init__({b"rows": Thing(random.Random(place).randbytes(300))})
        self._place = {"log": log, "at": place, "time": at(seconds).isoformat()}

    def position(self) -> dict[str, Any]:
        """Where it was made to stand."""
        return self._place


@dataclass
class Logged:
    """A repository with snapshots and logs; a segment is 100 places and 10 seconds long."""

    store: RecordingStore
    repository: Repository

    @classmethod
    def new(cls, tenant: str = "acme") -> Logged:
        store = RecordingStore()
        return cls(store, new_repository(store, TenantId(tenant)))

    def again(self, store: RecordingStore | None = None) -> Repository:
        """The repository, or what became of it, as another process sees it."""
        return reopened(store or self.store, self.repository.tenant)

    def back_up(self, place: int, seconds: float, source: SourceName = DB, log: str = "7/8") -> str:
        """A full backup that stands there in the log; its id."""
        url = f"postgresql://postgres@localhost/{source}"
        settings = TenantSettings(
            self.repository.tenant,
            Tier("standard"),
            (RegionSettings(PRIMARY, "memory://"),),
            (SourceSettings(source, url),),
        )
        clock = FixedClock(at(seconds))
        session = begin(self.repository, BackupKind.FULL, clock)
        adapter = LoggedSource(place, seconds, log)
        result = back_up_source(
            self.repository, session, settings.sources[0], adapter, lambda _: None, clock
        )
        return str(publish(self.repository, session, [result], settings, clock).snapshot.id)

    def open_chain(
        self, seconds: float = 0, source: SourceName = DB, meta: Mapping[str, Any] | None = None
    ) -> ChainId:
        """A chain that begins then, at its place."""
        chain, place = chain_of(seconds), int(seconds * 10)
        meta = {"log": "7/8", **(meta or {})}
        opening = LogHeader(chain, 0, place, place, None, None, None, 0, 0, meta=meta)
        self.repository.log(source).append(opening, b"")
        return chain

    def extend(self, chain: ChainId, count: int, source: SourceName = DB, **changed: Any) -> None:
        """So many segments more."""
        book = self.repository.log(source)
        last = book.header(chain, book.chains()[chain] - 1)
        for _ in range(count):
            end = last.end + 100
            moment = at(end / 10)
            first = moment - timedelta(seconds=9)
            last = LogHeader(
                chain, last.number + 1, last.end, end, first, moment, moment, 2, 3, meta={}
            )._replace(**changed)
            book.append(last, BODY)

    def extend_long(self, chain: ChainId, source: SourceName = DB) -> None:
        """One segment whose body is kept as chunks."""
        book = self.repository.log(source)
        last = book.header(chain, book.chains()[chain] - 1)
        long = transaction(relation(), row(text=random.Random(5).randbytes(MIB)))
        with self.repository.writer() as writer:
            spill = Spill(writer)
            spill.add(long)
        end, moment = last.end + 100, at(last.end / 10 + 10)
        header = LogHeader(
            chain, last.number + 1, last.end, end, moment, moment, moment, 1, 1, meta={}
        )
        book.append(header, b"", spill.close())


def name(chain: ChainId, number: int, source: SourceName = DB) -> str:
    """A segment's object."""
    return f"logs/{source}/{chain}/{number:08d}"


def logged(tenant: str = "acme") -> Logged:
    """Two sources; a backup before and one inside a chain of six segments, the last a long one."""
    made = Logged.new(tenant)
    for source in (DB, CRM):
        chain = made.open_chain(source=source)
        made.back_up(0, 0, source)
        made.extend(chain, 3, source)
        made.back_up(250, 25, source)
        made.extend(chain, 2, source)
    made.extend_long(chain_of(0), DB)
    return made
