"""
The steps of a backup: begin, back up each source, publish.

The sources of a session can be backed up at once, in threads or tasks of their own; each leaves
durable chunks and a small result, and `publish` is the one moment at which the snapshot exists.
A session that never comes so far is garbage that the next one makes use of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Thread
from typing import Any, Self

from kryonix_backup import __version__
from kryonix_backup.backup.incremental import all_entries, check_worth, stretch_since
from kryonix_backup.backup.pipeline import PartCounts, Pipeline, counted
from kryonix_backup.backup.report import BackupReport, summarise
from kryonix_backup.clock import Clock
from kryonix_backup.errors import (
    ConfigError,
    Damaged,
    KryonixError,
    LogBroken,
    ObjectExists,
    ObjectMissing,
    ValidationFailed,
)
from kryonix_backup.events import Listener, Progress, quiet
from kryonix_backup.model import (
    BackupKind,
    Entry,
    Problem,
    SnapshotId,
    TenantId,
    moment_of,
    new_run_id,
)
from kryonix_backup.repository.content import named_chunks, refs_of
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import PartResult, Snapshot, SourceResult
from kryonix_backup.repository.writer import ChunkWriter
from kryonix_backup.settings import SourceSettings, TenantSettings
from kryonix_backup.sources.source import Dump, FoldingSource, Size, Source

log = logging.getLogger(__name__)

_TELL_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Session:
    """A backup under way: the id its snapshot will have, and the one before it."""

    snapshot: SnapshotId
    tenant: TenantId
    kind: BackupKind
    parent: SnapshotId | None
    started: datetime

    def to_plain(self) -> dict[str, Any]:
        """The session as JSON can say it."""
        return {
            "snapshot": self.snapshot,
            "tenant": self.tenant,
            "kind": self.kind.value,
            "parent": self.parent,
            "started": self.started.isoformat(),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """A session out of `to_plain`'s form."""
        return cls(
            SnapshotId(plain["snapshot"]),
            TenantId(plain["tenant"]),
            BackupKind(plain["kind"]),
            plain["parent"],
            datetime.fromisoformat(plain["started"]),
        )


def begin(repository: Repository, kind: BackupKind, clock: Clock) -> Session:
    """A session whose parent is the newest snapshot; raises ConfigError for a kind without use."""
    if kind is BackupKind.LOG:
        raise ConfigError(
            "none of this tenant's sources keeps a transaction log",
            "Use --kind full or --kind incremental.",
        )
    now = clock.now()
    ids = repository.snapshot_ids()
    parent = ids[-1] if ids else None
    named = now
    if parent is not None and named <= moment_of(parent):
        # Ids must sort in the order of publishing even where a clock was set back.
        log.warning("the clock is behind snapshot %s; its time cannot be trusted", parent)
        named = moment_of(parent) + timedelta(seconds=1)
    return Session(SnapshotId(new_run_id(named)), repository.tenant, kind, parent, now)


def back_up_source(
    repository: Repository,
    session: Session,
    settings: SourceSettings,
    source: Source,
    listener: Listener,
    clock: Clock,
) -> SourceResult:
    """
    Store one source's content; everything is durable when this returns.

    An incremental backup does not read again what its source knows to be unchanged since the
    newest snapshot that holds it, and of one with a log that can be folded it reads the log alone;
    where that cannot be, it is a full one and says why. A full one reads everything, and stores
    only what is new. One that is empty now and was not before is told as a problem.
    """
    result = _backed_up(
        repository, session, settings, source, _Storing(repository, settings, listener, clock)
    )
    if result.entries > 1 or session.parent is None:
        return result
    return _doubted(result, _newest(repository, settings))


def _backed_up(
    repository: Repository,
    session: Session,
    settings: SourceSettings,
    source: Source,
    storing: _Storing,
) -> SourceResult:
    before = _before(repository, session, settings)
    if session.kind is BackupKind.INCREMENTAL and isinstance(source, FoldingSource):
        try:
            return storing.folded(source, before)
        except (LogBroken, Damaged, ObjectMissing, ValidationFailed) as error:
            log.warning("source %s is backed up in full: %s", settings.name, error.message)
            return replace(storing.dumped(source, before), why=error.message)
    return storing.dumped(source, before)


class _Storing:
    """One source on its way into the repository."""

    def __init__(
        self, repository: Repository, settings: SourceSettings, listener: Listener, clock: Clock
    ) -> None:
        self._repository = repository
        self._settings = settings
        self._listener = listener
        self._clock = clock
        self._started = clock.monotonic()

    def dumped(self, source: Source, before: SourceResult | None) -> SourceResult:
        """What the source gives, which may know what has not changed."""
        return self._stored(
            source,
            lambda writer, part: source.dump(part, _since(self._repository, writer, before, part)),
        )

    def folded(self, source: FoldingSource, before: SourceResult | None) -> SourceResult:
        """What was there before, and its log since; raises LogBroken, Damaged."""
        if before is None:
            raise LogBroken("there is no snapshot of it to build on")
        stretch = stretch_since(self._repository, source, before, self._clock)
        sizes = [source.measure(part) for part in source.parts()]
        (known,) = before.parts

        def fold(writer: ChunkWriter, _part: str) -> Dump:
            since = all_entries(_whole_entries(self._repository, writer, known), known)
            return source.fold(since, stretch)

        result = self._stored(source, fold)
        check_worth(result, _sum_of(sizes))
        return result

    def _stored(self, source: Source, dump_of: Callable[[ChunkWriter, str], Dump]) -> SourceResult:
        problems: list[Problem] = []
        why: list[str] = []
        parts: list[PartResult] = []
        counts: list[PartCounts] = []
        repository, settings, listener = self._repository, self._settings, self._listener
        with repository.writer() as writer:
            teller = _Teller(listener, self._clock, writer)
            if listener is not quiet:
                Thread(target=teller.measure, args=(source,), daemon=True).start()
            pipeline = Pipeline(repository, writer, settings.compression, teller.tell)
            try:
                for part in source.parts():
                    dump = dump_of(writer, part)
                    root, count = pipeline.run(dump)
                    parts.append(PartResult(part, root, count.entries, count.bytes_total))
                    counts.append(count)
                    teller.part_done(count)
                    problems.extend(dump.problems)
                    why.extend(dump.why)
            finally:
                pipeline.close()
        total, kept = counted(iter(counts)), writer.counts
        return SourceResult(
            name=settings.name,
            url=settings.url,
            parts=tuple(parts),
            position=source.position(),
            entries=total.entries,
            entries_unchanged=total.entries_unchanged,
            bytes_total=total.bytes_total,
            bytes_read=total.bytes_read,
            bytes_new=kept.bytes_new,
            bytes_stored=kept.bytes_stored,
            chunks=kept.chunks,
            chunks_new=kept.chunks_new,
            duration_s=round(self._clock.monotonic() - self._started, 3),
            problems=tuple(problems),
            why="; ".join(why),
        )


def publish(
    repository: Repository,
    session: Session,
    results: Sequence[SourceResult],
    settings: TenantSettings,
    clock: Clock,
) -> BackupReport:
    """
    Make the snapshot count; nothing is written after this.

    A session that is published again, after an answer that was lost, keeps its first snapshot.
    """
    snapshot = Snapshot(
        id=session.snapshot,
        tenant=repository.tenant,
        kind=session.kind,
        parent=session.parent,
        started=session.started,
        finished=clock.now(),
        sources={result.name: result for result in results},
        settings=settings.to_plain(),
        version=__version__,
    )
    try:
        repository.publish(snapshot)
    except ObjectExists:
        log.info("session %s was published before", session.snapshot)
        snapshot = repository.snapshot(session.snapshot)
    return summarise(snapshot)


def _before(
    repository: Repository, session: Session, settings: SourceSettings
) -> SourceResult | None:
    if session.kind is BackupKind.FULL or session.parent is None:
        return None
    return _newest(repository, settings)


def _newest(repository: Repository, settings: SourceSettings) -> SourceResult | None:
    for snapshot_id in reversed(repository.snapshot_ids()):
        snapshot = repository.whole_snapshot(snapshot_id)
        found = snapshot.sources.get(settings.name) if snapshot is not None else None
        if found is not None and found.url == settings.url:
            return found
    return None


def _doubted(result: SourceResult, before: SourceResult | None) -> SourceResult:
    """A mount point is still there when its disk is not: it must not pass for an empty tree."""
    if before is None or before.entries <= 1:
        return result
    reason = f"it is empty, and held {before.entries:,} entries before: is its disk mounted?"
    return replace(result, problems=(*result.problems, Problem(result.name, reason)))


def _since(
    repository: Repository, writer: ChunkWriter, before: SourceResult | None, part: str
) -> Iterator[Entry] | None:
    for known in before.parts if before else ():
        if known.name == part:
            return _whole_entries(repository, writer, known)
    return None


def _whole_entries(
    repository: Repository, writer: ChunkWriter, part: PartResult
) -> Iterator[Entry]:
    """
    The part's entries whose content is all there.

    An entry that has lost a chunk is passed over, and so is everything after a damaged leaf: the
    source then takes them for new and reads them again, which heals the repository.
    """
    reader = repository.reader()
    try:
        for entry in repository.tree(part.root, reader).entries():
            if entry.refs and not writer.holds(named_chunks(entry)):
                continue
            if entry.indirect:
                refs = refs_of(entry, reader.read)
                if not writer.holds([ref.chunk for ref in refs]):
                    continue
            yield entry
    except (Damaged, ObjectMissing) as error:
        log.warning("the tree of the snapshot before is damaged, reading anew: %s", error.message)


def _sum_of(sizes: Sequence[Size]) -> Size:
    return Size(sum(size.entries for size in sizes), sum(size.bytes for size in sizes))


class _Teller:
    """Turns counts into progress, a few times a second."""

    def __init__(self, listener: Listener, clock: Clock, writer: ChunkWriter) -> None:
        self._listener = listener
        self._clock = clock
        self._writer = writer
        self._started = self._told = clock.monotonic()
        self._earlier = PartCounts()
        self._totals = Size(0, 0)

    def measure(self, source: Source) -> None:
        """Find out how much there is; progress knows no totals until then."""
        try:
            self._totals = _sum_of([source.measure(part) for part in source.parts()])
        except KryonixError as error:
            log.info("how much there is stays unknown: %s", error.message)

    def part_done(self, counts: PartCounts) -> None:
        """Count a finished part in."""
        self._earlier = counted(iter((self._earlier, counts)))
        self._say(PartCounts())

    def tell(self, counts: PartCounts) -> None:
        """Say how far the present part is, unless it was said a moment ago."""
        if self._clock.monotonic() - self._told >= _TELL_EVERY_S:
            self._say(counts)

    def _say(self, counts: PartCounts) -> None:
        self._told = self._clock.monotonic()
        now = counted(iter((self._earlier, counts)))
        self._listener(
            Progress(
                stage="backup",
                bytes_done=now.bytes_total,
                bytes_total=self._totals.bytes,
                entries_done=now.entries,
                entries_total=self._totals.entries,
                bytes_stored=self._writer.counts.bytes_stored,
                elapsed_s=self._told - self._started,
            )
        )
