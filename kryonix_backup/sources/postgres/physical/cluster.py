"""A PostgreSQL cluster of one tenant as a source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from typing import Any

from kryonix_backup.errors import ConfigError, SourceMissing
from kryonix_backup.model import Entry, EntryKind, LogHeader
from kryonix_backup.settings import SourceSettings
from kryonix_backup.sources.postgres.dumping.reading import Pieces
from kryonix_backup.sources.postgres.physical.address import ClusterAddress
from kryonix_backup.sources.postgres.physical.archive import Archive, Member
from kryonix_backup.sources.postgres.physical.basebackup import BaseBackup
from kryonix_backup.sources.postgres.physical.checking import check
from kryonix_backup.sources.postgres.physical.earlier import Earlier
from kryonix_backup.sources.postgres.physical.log import PhysicalLog, log_of, replicating
from kryonix_backup.sources.postgres.physical.paths import MANIFEST, backup_name
from kryonix_backup.sources.postgres.physical.slot import (
    Cluster,
    look_at,
    missing,
    prepare,
    refuse_shared,
    release,
    slot_of,
)
from kryonix_backup.sources.postgres.server.session import Connection, connected
from kryonix_backup.sources.source import Dump, Finding, Item, LogStream, Size

PART = "cluster"
_FILES_A_DATABASE = 300  # about; for progress only
_INCREMENTAL_SINCE = 170_000


class PhysicalSource:
    """
    One cluster, in one part named ``cluster``: the files of its data directory.

    A backup is the server's own base backup. An incremental one, which PostgreSQL makes from 17
    on, comes beside the backups of the snapshot before, so that every snapshot is whole. Raises
    InvalidUrl and ConfigError for settings without sense.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._address = ClusterAddress.parse(settings.url)
        if settings.include or settings.exclude or settings.one_file_system:
            raise ConfigError(
                f"source {settings.name} is a cluster, which has no include, exclude or"
                " one_file_system",
                "Remove them: a cluster is backed up and comes back whole.",
            )
        self._position: dict[str, Any] = {}

    # ------------------------------------------------------------------ its log

    def preparation(self, consent: bool) -> list[str]:  # noqa: FBT001 - as the port names it
        """The SQL that `prepare` would run now; there is nothing to consent to."""
        with connected(self._address.server) as connection:
            return missing(connection)

    def prepare(self, consent: bool) -> None:  # noqa: FBT001
        """Make the server keep its WAL for us; raises SourceUnprepared, SourceUnavailable."""
        prepare(self._address)

    def release(self) -> list[str]:
        """Drop our slot; raises AlreadyRunning."""
        return release(self._address)

    def new_chain(self, *, renew: bool) -> LogHeader:
        """
        The opening segment of a chain that begins where our slot does, or where a new one does.

        Raises SourceUnprepared where the cluster was never prepared.
        """
        return PhysicalLog(self._address).new_chain(renew=renew)

    def follow(self, opening: LogHeader, last: LogHeader) -> AbstractContextManager[LogStream]:
        """Go on after ``last``; raises LogBroken, AlreadyRunning, SourceUnavailable."""
        return PhysicalLog(self._address).follow(opening, last)

    # ------------------------------------------------------------------ what is in it

    def check(self) -> list[Finding]:
        """What of the server and the user's rights would stop a backup."""
        return check(self._address)

    def parts(self) -> tuple[str, ...]:
        """Its one part."""
        return (PART,)

    def measure(self, part: str) -> Size:
        """About how many files there are, and how many bytes."""
        with connected(self._address.server) as connection:
            row = connection.execute(
                "select count(*), sum(pg_database_size(oid))::int8 from pg_database"
            ).fetchone()
        assert row is not None
        return Size(row[0] * _FILES_A_DATABASE, row[1])

    def dump(self, part: str, since: Iterator[Entry] | None) -> Dump:
        """
        A base backup; with ``since`` an incremental one beside what that holds, where it can be.

        Raises SourceMissing for a part it does not have.
        """
        if part != PART:
            raise SourceMissing(f"{self._address.shown} has no part {part!r}")
        why: list[str] = []
        return Dump(self._items(since, why), [], ordered=False, why=why)

    def position(self) -> dict[str, Any]:
        """Where the last backup ends in the log; empty where no slot keeps the log."""
        return self._position

    def _items(self, since: Iterator[Entry] | None, why: list[str]) -> Iterator[Item]:
        with ExitStack() as stack:
            connection = stack.enter_context(connected(self._address.server))
            refuse_shared(connection, self._address)
            cluster = look_at(connection, self._address)
            earlier = None if since is None else stack.enter_context(closing(Earlier(since)))
            begun, because = self._begun(stack, cluster, earlier)
            if because:
                why.append(because)
            if begun.number and earlier is not None:
                yield from (Item(entry) for entry in earlier.entries())
            yield from begun.items()
            self._position = _place(connection, begun)

    def _begun(
        self, stack: ExitStack, cluster: Cluster, earlier: Earlier | None
    ) -> tuple[_Dumping, str]:
        """A backup that the server has begun, and why it is no incremental one if it should be."""
        because = "" if earlier is None else _unfit(cluster, earlier)
        if earlier is not None and not because:
            with ExitStack() as attempt:
                base = self._connected(attempt)
                because = base.begin_after(earlier.manifest())
                if not because:
                    stack.push(attempt.pop_all())
                    return _Dumping(base, cluster, earlier.next), ""
        base = self._connected(stack)
        base.begin()
        return _Dumping(base, cluster, 0), because

    def _connected(self, stack: ExitStack) -> BaseBackup:
        return BaseBackup(stack.enter_context(replicating(self._address)), self._address.server)


def _place(connection: Connection, begun: _Dumping) -> dict[str, Any]:
    row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None
    if slot_of(connection) is None:
        return {}
    log = log_of(begun.cluster.system, begun.timeline)
    return {"log": log, "at": begun.end, "time": row[0].isoformat()}


def _unfit(cluster: Cluster, earlier: Earlier) -> str:
    if earlier.unusable:
        return earlier.unusable
    if cluster.version < _INCREMENTAL_SINCE:
        return (
            f"PostgreSQL {cluster.version // 10_000} makes none; version 17 is the first that does"
        )
    meta = earlier.meta
    if (meta["system"], meta["timeline"]) != (cluster.system, cluster.timeline):
        return "the snapshot before is of another server, or of one before it was promoted"
    return ""


class _Dumping:
    """One backup that the server has begun, as items."""

    def __init__(self, base: BaseBackup, cluster: Cluster, number: int) -> None:
        self.cluster = cluster
        self.number = number
        self.timeline = base.start.timeline
        self.end = 0
        self._base = base
        self._name = backup_name(number)
        self._count = 0

    def items(self) -> Iterator[Item]:
        yield self._item(Member(b"", EntryKind.DIRECTORY, 0, self.cluster.mode), None)
        archive = Archive(self._base.archive())
        for member in archive.members():
            yield self._item(member, archive)
        self._count += 1
        path = self._name + b"/" + MANIFEST
        entry = Entry(path, EntryKind.FILE, 0)
        yield Item(entry, lambda: _ManifestReader(self, entry))

    def finished(self, entry: Entry) -> Entry:
        """The manifest's entry, which knows how to bring the backup back."""
        self.end = self._base.finish().lsn
        meta = {
            "number": self.number,
            "version": self.cluster.version,
            "system": self.cluster.system,
            "timeline": self.timeline,
            "segment": self.cluster.segment,
            "superuser": self.cluster.superuser,
            "start": self._base.start.lsn,
            "end": self.end,
            "entries": self._count,
            "mode": 0o600,
        }
        return entry._replace(meta=meta)

    def manifest(self) -> Pieces:
        return Pieces(self._base.manifest())

    def _item(self, member: Member, archive: Archive | None) -> Item:
        self._count += 1
        path = self._name + (b"/" + member.path if member.path else b"")
        entry = Entry(path, member.kind, member.size, meta={"mode": member.mode})
        if archive is None or member.kind is not EntryKind.FILE:
            return Item(entry)
        return Item(entry, lambda: _MemberReader(entry, archive))


class _MemberReader:
    """A file of the cluster, out of the middle of the server's archive."""

    def __init__(self, entry: Entry, archive: Archive) -> None:
        self._entry = entry
        self.readinto = archive.readinto

    def close(self) -> Entry:
        return self._entry


class _ManifestReader:
    """The server's manifest; behind it the server says where the backup ended."""

    def __init__(self, dumping: _Dumping, entry: Entry) -> None:
        self._dumping = dumping
        self._entry = entry
        self.readinto = dumping.manifest().readinto

    def close(self) -> Entry:
        return self._dumping.finished(self._entry)
