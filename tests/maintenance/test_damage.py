"""No object stands for another one, and no changed byte is missed; never wrong data."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from kryonix_backup.errors import ObjectMissing, RepositoryError
from kryonix_backup.maintenance import verify as verify_module
from kryonix_backup.model import EntryKind
from kryonix_backup.repository import repository as repository_module
from kryonix_backup.repository.content import refs_of
from kryonix_backup.repository.repository import Repository
from kryonix_backup.testing.repositories import FILES, RecordingStore, reopened
from tests.maintenance.conftest import Filled, verified


def _swaps(filled: Filled, others: list[Filled], prefix: str) -> Iterator[tuple[str, bytes]]:
    """Every object of a kind with the content of another one, near or far."""
    names = filled.store.names(prefix)
    for name in names:
        for one in (filled, *others):
            for donor in one.store.names(prefix):
                if (one, donor) != (filled, name):
                    yield name, one.store.objects[donor]


@pytest.mark.parametrize("prefix", ["packs/", "index/", "snapshots/", "keys/", "format.json"])
def test_no_object_can_stand_for_another_one(
    filled: Filled, other: Filled, theirs: Filled, prefix: str
) -> None:
    """Neither of this repository, nor of another one of the tenant, nor of another tenant."""
    tried = 0
    for name, body in _swaps(filled, [other, theirs], prefix):
        store = filled.store.copy()
        store.objects[name] = body
        tried += 1

        try:
            report = verified(reopened(store))
        except (RepositoryError, ObjectMissing) as error:
            assert error.message
        else:
            assert name in [damage.object for damage in report.damage]
        filled.first_error(store)  # no wrong data, and no other error
    assert tried >= 2


def test_an_object_of_another_kind_stands_for_none(filled: Filled) -> None:
    kinds = ["packs/", "index/", "snapshots/", "keys/", "format.json"]
    for target in kinds:
        for donor in kinds:
            if target == donor:
                continue
            store = filled.store.copy()
            name = store.names(target)[0]
            store.objects[name] = store.objects[store.names(donor)[0]]
            try:
                report = verified(reopened(store))
            except (RepositoryError, ObjectMissing):
                continue
            assert name in [damage.object for damage in report.damage]


def test_copies_under_other_names_change_nothing(filled: Filled) -> None:
    store = filled.store.copy()
    for name in filled.store.names():
        store.objects[name + "0"] = store.objects[name]
    for name in [*store.names("index/"), *store.names("snapshots/")]:
        if name not in filled.store.objects:
            del store.objects[name]

    assert verified(reopened(store)).status == "ok"
    assert filled.first_error(store) is None


# ---------------------------------------------------------------------- every byte


class _Inline:
    """Runs at once what a pool of threads would run: ten times faster on so little."""

    def __init__(self, _count: int, thread_name_prefix: str = "") -> None:
        self.map = map

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_every_flipped_bit_of_every_object_is_told_or_harmless(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open, verify and read everything, with one bit changed, for each byte of the repository."""
    monkeypatch.setattr(verify_module, "ThreadPoolExecutor", _Inline)
    monkeypatch.setattr(repository_module, "ThreadPoolExecutor", _Inline)
    chance = random.Random(7)
    harmless: list[str] = []
    for name in filled.store.names():
        body = filled.store.objects[name]
        for at in range(len(body)):
            changed = bytearray(body)
            changed[at] ^= 1 << chance.randrange(8)
            store = filled.store.copy()
            store.objects[name] = bytes(changed)
            if not _is_told(filled, store, name, at):
                harmless.append(name)

    # When it was made stands in its plain description and is bound to nothing; so do the spaces.
    assert set(harmless) <= {"format.json"}
    assert len(harmless) < 60


def _is_told(filled: Filled, store: RecordingStore, name: str, at: int) -> bool:
    problem = _problem_of(filled, store)
    if problem is not None:
        named = name in problem or (name == "format.json" and "keys/" in problem)
        assert named, f"byte {at} of {name} changed, and told was: {problem}"
    return problem is not None


def _problem_of(filled: Filled, store: RecordingStore) -> str | None:
    """What opening or verifying tells; raises AssertionError where wrong data is read."""
    try:
        repository = reopened(store)
        report = verified(repository)
    except (RepositoryError, ObjectMissing) as error:
        return f"{error.message}"
    for snapshot, path, content in _read_whole(repository):
        assert filled.contents[snapshot][path] == content, f"wrong data in {path} of {snapshot}"
    return " ".join(damage.object for damage in report.damage) or None


def _read_whole(repository: Repository) -> Iterator[tuple[str, str, bytes]]:
    """Every file that can be read, without the threads of a stream."""
    reader = repository.reader()
    for snapshot_id in repository.snapshot_ids():
        try:
            (part,) = repository.snapshot(snapshot_id).sources[FILES].parts
            for entry in repository.tree(part.root, reader).entries():
                if entry.kind is EntryKind.FILE:
                    refs = refs_of(entry, reader.read)
                    content = b"".join(bytes(reader.read(ref.chunk)) for ref in refs)
                    yield snapshot_id, f"files/{entry.text}", content
        except (RepositoryError, ObjectMissing):
            continue
