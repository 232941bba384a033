"""
Proving that every snapshot can be read, and every transaction log replayed.

*structure*: every chunk that a snapshot names is in a pack that is there in full length.
*sample*: that, and a random share of all packs is read, opened and hashed again.
*data*: that, and every pack is. What that means for logs is in `verify_logs`.
What is damaged is named together with the snapshots, entries and moments that depend on it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from kryonix_backup.clock import Clock
from kryonix_backup.errors import (
    Damaged,
    KeyUnusable,
    KryonixError,
    ObjectMissing,
    RepositoryError,
    SnapshotUnknown,
)
from kryonix_backup.events import Listener, Progress
from kryonix_backup.maintenance.report import Damage, Level, VerifyReport
from kryonix_backup.maintenance.verify_logs import LogsFound, LogVerification
from kryonix_backup.model import ChunkId, Entry, PackId, SnapshotId, SourceName
from kryonix_backup.repository.content import list_chunks, refs_of
from kryonix_backup.repository.layout import SNAPSHOTS, pack_name
from kryonix_backup.repository.pack import PackInfo
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import PartResult, Snapshot
from kryonix_backup.repository.tree import TreeReader

# One opens a pack while the other waits for a disk. What they hold is less than a backup does, so
# the least memory that a tier may allow is enough.
_LEAST_READERS = 2
_SAMPLE_SHARE = 30  # one pack in so many: read daily, everything is read within a month
_AFFECTED_SHOWN = 100  # entries named for one damaged object; the count is always whole


def verify(
    repository: Repository,
    level: Level,
    listener: Listener,
    clock: Clock,
    snapshots: Sequence[str] = (),
) -> VerifyReport:
    """
    Check these snapshots, or all of them, and the packs and logs of the whole repository.

    Damage is found and told, not raised; what cannot be reached at all raises TransientError.
    """
    return _Verification(repository, level, listener, clock).run(snapshots)


class _Verification:
    """One verification under way: what is damaged, and who depends on it."""

    def __init__(
        self, repository: Repository, level: Level, listener: Listener, clock: Clock
    ) -> None:
        self._repository = repository
        self._level = level
        self._listener = listener
        self._clock = clock
        self._started = clock.monotonic()
        self._there: set[PackId] = set()
        self._bad: set[tuple[PackId, ChunkId]] = set()
        self._reasons: dict[str, str] = {}
        self._affected: dict[str, list[str]] = {}
        self._blames = 0
        self._sound_leaves: set[ChunkId] = set()
        self._bytes_read = 0
        self._checked: dict[str, Snapshot | None] = {}
        self._unsound: dict[SourceName, set[SnapshotId]] = {}

    def run(self, wanted: Sequence[str]) -> VerifyReport:
        # Snapshots and logs first, then the index, then the packs: the reverse of the order of
        # writing, so that a backup that goes on meanwhile is not taken for damage.
        ids = self._repository.snapshot_ids()
        snapshots = wanted or ids
        logs = LogVerification(self._repository, self._level)
        self._index = self._repository.load_index()
        self._reader = self._repository.reader()
        packs = self._index.packs()
        self._reasons.update(self._index.damaged)
        self._there = self._repository.present_packs()
        for pack in set(packs) - self._there:
            self._reasons[pack_name(pack)] = "is missing, or has another length than was written"
        # Packs are read first: what is damaged in them is then traced to entries in one pass.
        to_read = [packs[pack] for pack in self._picked(sorted(self._there))]
        self._read_packs(to_read)
        for each in snapshots:
            self._check_snapshot(each)
        return self._report(len(snapshots), len(packs), len(to_read), self._check_logs(logs, ids))

    def _check_logs(self, logs: LogVerification, ids: Sequence[SnapshotId]) -> LogsFound:
        if not logs.is_needed:
            return LogsFound()
        for each in ids:
            if each not in self._checked:
                self._checked[each] = self._repository.whole_snapshot(each)
        there = [snapshot for each in ids if (snapshot := self._checked[each]) is not None]
        found = logs.run(there, self._unsound, self._culprit)
        for culprit, segment in found.blamed:
            self._blame(culprit, "is damaged", segment)
        self._bytes_read += found.bytes_read
        return found

    def _report(
        self, snapshots: int, packs: int, packs_read: int, found: LogsFound
    ) -> VerifyReport:
        return VerifyReport(
            tenant=self._repository.tenant,
            level=self._level,
            snapshots=snapshots,
            packs=packs,
            packs_read=packs_read,
            chunks=len(self._index),
            bytes_read=self._bytes_read,
            duration_s=round(self._clock.monotonic() - self._started, 3),
            segments=found.segments,
            segments_read=found.segments_read,
            logs=tuple(found.logs),
            damage=(*self._damage(), *found.damage),
        )

    def _picked(self, packs: list[PackId]) -> list[PackId]:
        if self._level is Level.STRUCTURE:
            return []
        if self._level is Level.DATA:
            return packs
        count = -(-len(packs) // _SAMPLE_SHARE)
        return sorted(secrets.SystemRandom().sample(packs, count))

    def _read_packs(self, packs: Sequence[PackInfo]) -> None:
        total = sum(pack.size for pack in packs)
        readers = max(self._repository.store.parallel, _LEAST_READERS)
        with ThreadPoolExecutor(readers, thread_name_prefix="scrub") as pool:
            for pack, reason, bad in pool.map(self._repository.scrubber(), packs):
                self._bytes_read += pack.size
                if reason:
                    self._reasons[pack_name(pack.id)] = reason
                self._bad.update((pack.id, chunk) for chunk in bad)
                elapsed = self._clock.monotonic() - self._started
                self._listener(Progress("verify", self._bytes_read, total, elapsed_s=elapsed))

    def _check_snapshot(self, wanted: str) -> None:
        try:
            snapshot = self._repository.snapshot(wanted)
        except (SnapshotUnknown, KeyUnusable):
            raise  # no damage: there is none of that id, or an operator forbade to open it
        except (RepositoryError, ObjectMissing) as error:
            self._checked[wanted] = None
            self._blame(f"{SNAPSHOTS}{wanted}", error.message, f"snapshot {wanted}")
            return
        self._checked[snapshot.id] = snapshot
        for source in snapshot.sources.values():
            before = self._blames
            for part in source.parts:
                self._check_part(part, f"{snapshot.id}:{source.shown(part, b'')}")
            if self._blames > before:
                self._unsound.setdefault(source.name, set()).add(snapshot.id)

    def _check_part(self, part: PartResult, who: str) -> None:
        tree = self._repository.tree(part.root, self._reader)
        try:
            for chunk in tree.chunks():
                if (culprit := self._culprit(chunk)) is not None:
                    self._blame(culprit, "is damaged", f"{who} (its tree)")
            for leaf in tree.leaves():
                self._check_leaf(tree, leaf, who)
        except (Damaged, ObjectMissing) as error:
            self._blame_chunk(part.root.chunk, error, who)

    def _check_leaf(self, tree: TreeReader, leaf: ChunkId, who: str) -> None:
        # A leaf that other snapshots share is looked at once, as long as it is sound.
        if leaf in self._sound_leaves:
            return
        try:
            entries = tree.leaf(leaf)
        except (Damaged, ObjectMissing) as error:
            self._blame_chunk(leaf, error, who)
            return
        if self._check_entries(entries, who):
            self._sound_leaves.add(leaf)

    def _blame_chunk(self, chunk: ChunkId, error: KryonixError, who: str) -> None:
        """Blame the pack of a part of a tree, or the chunk itself where its pack seemed sound."""
        culprit = self._culprit(chunk) or f"chunk {chunk.hex()}"
        if who not in (
            each.removesuffix(" (its tree)") for each in self._affected.get(culprit, ())
        ):
            self._blame(culprit, error.message, f"{who} (its tree)")

    def _check_entries(self, entries: Sequence[Entry], who: str) -> bool:
        sound = True
        for entry in entries:
            for culprit in self._culprits(entry):
                sound = False
                self._blame(culprit, "is damaged", f"{who}/{entry.text}")
        return sound

    def _culprits(self, entry: Entry) -> set[str]:
        lists = {self._culprit(ref.chunk) for ref in list_chunks(entry)} - {None}
        if not lists:
            lists = {self._culprit(ref.chunk) for ref in refs_of(entry, self._reader.read)} - {None}
        return {culprit for culprit in lists if culprit is not None}

    def _culprit(self, chunk: ChunkId) -> str | None:
        """The object to blame where a chunk cannot be read; None where one place has it whole."""
        blamed = None
        for found in self._index.find_all(chunk):
            if found.pack.id in self._there and (found.pack.id, chunk) not in self._bad:
                return None
            blamed = blamed or pack_name(found.pack.id)
        return blamed or f"chunk {chunk.hex()}, which no index names"

    def _blame(self, culprit: str, reason: str, who: str) -> None:
        self._blames += 1
        self._reasons.setdefault(culprit, reason)
        self._affected.setdefault(culprit, []).append(who)

    def _damage(self) -> Iterator[Damage]:
        for name, reason in sorted(self._reasons.items()):
            affected = self._affected.get(name, [])
            yield Damage(name, reason, tuple(affected[:_AFFECTED_SHOWN]), len(affected))
