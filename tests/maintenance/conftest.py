"""Small repositories of two snapshots, and what each of them holds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from kryonix_backup.browse.listing import list_entries, read_entry
from kryonix_backup.errors import KryonixError
from kryonix_backup.events import quiet
from kryonix_backup.maintenance.report import Level, VerifyReport
from kryonix_backup.maintenance.verify import verify
from kryonix_backup.model import EntryKind, TenantId
from kryonix_backup.repository.repository import Repository
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.repositories import (
    RecordingStore,
    back_up,
    new_repository,
    reopened,
)
from kryonix_backup.testing.sources import MemorySource, Thing

DAY = timedelta(days=1)


def data(seed: int, size: int = 400) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


DIRECTORY = Thing(kind=EntryKind.DIRECTORY)
FIRST = {
    b"": DIRECTORY,
    b"a": Thing(data(1)),
    b"d": DIRECTORY,
    b"d/b": Thing(data(2)),
    b"d/c": Thing(b"text " * 100),
}
SECOND = {**FIRST, b"d/b": Thing(data(3)), b"e": Thing(data(4))}


@dataclass
class Filled:
    """A store, and for every snapshot in it the content of each path."""

    store: RecordingStore
    contents: dict[str, dict[str, bytes]]

    def first_error(self, store: RecordingStore) -> KryonixError | None:
        """What reading everything there ends with; raises AssertionError for wrong data."""
        try:
            for snapshot, path, content in read_all(reopened(store)):
                assert self.contents[snapshot][path] == content, f"wrong data in {path}"
        except KryonixError as error:
            return error
        return None


def read_all(repository: Repository) -> Iterator[tuple[str, str, bytes]]:
    """Every file of every snapshot."""
    for snapshot_id in repository.snapshot_ids():
        snapshot = repository.snapshot(snapshot_id)
        for listed in list_entries(repository, snapshot):
            if listed.entry.kind is EntryKind.FILE:
                pieces = read_entry(repository, snapshot, listed.path)
                yield snapshot_id, listed.path, b"".join(bytes(piece) for piece in pieces)


def _fill(tenant: str = "acme") -> Filled:
    store = RecordingStore()
    repository = new_repository(store, TenantId(tenant))
    contents = {}
    for day, tree in enumerate((FIRST, SECOND)):
        clock = FixedClock(NOON + day * DAY)
        snapshot = back_up(repository, MemorySource(tree), clock=clock).snapshot
        contents[str(snapshot.id)] = {
            f"files/{path.decode()}": thing.data
            for path, thing in tree.items()
            if thing.kind is EntryKind.FILE
        }
    return Filled(store, contents)


@pytest.fixture(scope="session")
def filled() -> Filled:
    return _fill()


@pytest.fixture(scope="session")
def other() -> Filled:
    """Another repository of the same tenant."""
    return _fill()


@pytest.fixture(scope="session")
def theirs() -> Filled:
    """Another tenant's repository."""
    return _fill("globex")


def verified(repository: Repository, level: Level = Level.DATA, *snapshots: str) -> VerifyReport:
    """The report of a verification on a clock that stands still."""
    return verify(repository, level, quiet, FixedClock(), snapshots)
