"""What is damaged is found and named, with the entries that depend on it; never wrong data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from kryonix_backup.browse.listing import list_entries, read_entry
from kryonix_backup.errors import (
    KryonixError,
    ObjectMissing,
    RepositoryError,
    RepositoryMissing,
    SnapshotUnknown,
    StoreUnavailable,
)
from kryonix_backup.events import Progress, quiet
from kryonix_backup.maintenance import verify as verify_module
from kryonix_backup.maintenance.verify import Level, VerifyReport, verify
from kryonix_backup.model import EntryKind, TenantId
from kryonix_backup.repository import repository as repository_module
from kryonix_backup.repository.content import refs_of
from kryonix_backup.repository.repository import Repository
from kryonix_backup.testing.clock import NOON, FixedClock, TickingClock
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import (
    RecordingStore,
    back_up,
    new_repository,
    reopened,
)
from kryonix_backup.testing.sources import MemorySource, Thing

DAY = timedelta(days=1)


def _data(seed: int, size: int = 400) -> bytes:
    return random.Random(seed).randbytes(size)


DIRECTORY = Thing(kind=EntryKind.DIRECTORY)
FIRST = {
    b"": DIRECTORY,
    b"a": Thing(_data(1)),
    b"d": DIRECTORY,
    b"d/b": Thing(_data(2)),
    b"d/c": Thing(b"text " * 100),
}
SECOND = {**FIRST, b"d/b": Thing(_data(3)), b"e": Thing(_data(4))}


@dataclass
class Filled:
    """A small repository of two snapshots, and what each of them holds."""

    store: RecordingStore
    contents: dict[str, dict[str, bytes]]


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


@pytest.fixture(scope="module")
def filled() -> Filled:
    return _fill()


@pytest.fixture(scope="module")
def other() -> Filled:
    """Another repository of the same tenant."""
    return _fill()


@pytest.fixture(scope="module")
def theirs() -> Filled:
    """Another tenant's repository."""
    return _fill("globex")


def _verify(repository: Repository, level: Level = Level.DATA, *snapshots: str) -> VerifyReport:
    return verify(repository, level, quiet, FixedClock(), snapshots)


def _read_all(repository: Repository) -> Iterator[tuple[str, str, bytes]]:
    """Every file of every snapshot that can be listed; raises KryonixError."""
    for snapshot_id in repository.snapshot_ids():
        snapshot = repository.snapshot(snapshot_id)
        for listed in list_entries(repository, snapshot):
            if listed.entry.kind is EntryKind.FILE:
                pieces = read_entry(repository, snapshot, listed.path)
                yield snapshot_id, listed.path, b"".join(bytes(piece) for piece in pieces)


def _first_error(store: RecordingStore) -> KryonixError | None:
    """What reading everything ends with; raises AssertionError for wrong data."""
    expected = _expected(store)
    try:
        for snapshot, path, content in _read_all(reopened(store)):
            assert expected[snapshot, path] == content, f"wrong data in {path} of {snapshot}"
    except KryonixError as error:
        return error
    return None


_CONTENTS: dict[tuple[str, str], bytes] = {}


def _expected(_store: RecordingStore) -> dict[tuple[str, str], bytes]:
    return _CONTENTS


@pytest.fixture(autouse=True)
def _known_contents(filled: Filled) -> None:
    for snapshot, files in filled.contents.items():
        for path, content in files.items():
            _CONTENTS[snapshot, path] = content


# ---------------------------------------------------------------------- sound


@pytest.mark.parametrize("level", list(Level))
def test_a_sound_repository_is_ok(filled: Filled, level: Level) -> None:
    report = _verify(reopened(filled.store), level)

    packs = filled.store.names("packs/")
    assert report.status == "ok"
    assert report.damage == ()
    assert (report.snapshots, report.packs) == (2, len(packs))
    read = {Level.STRUCTURE: 0, Level.SAMPLE: 1, Level.DATA: len(packs)}[level]
    assert report.packs_read == read
    if level is Level.DATA:
        assert report.bytes_read == sum(len(filled.store.objects[name]) for name in packs)


def test_an_empty_repository_is_ok() -> None:
    assert _verify(new_repository()).status == "ok"


def test_the_report_has_its_known_form(filled: Filled) -> None:
    plain = _verify(reopened(filled.store)).to_plain()

    assert sorted(plain) == [
        "bytes_read", "chunks", "damage", "duration_s", "level", "packs", "packs_read",
        "snapshots", "status", "tenant",
    ]  # fmt: skip
    assert (plain["tenant"], plain["level"], plain["status"]) == ("acme", "data", "ok")


def test_progress_grows_to_the_size_of_all_packs(filled: Filled) -> None:
    told: list[Progress] = []

    report = verify(reopened(filled.store), Level.DATA, told.append, TickingClock())

    assert [each.bytes_done for each in told] == sorted(each.bytes_done for each in told)
    assert told[-1].bytes_done == told[-1].bytes_total == report.bytes_read
    assert {each.stage for each in told} == {"verify"}


def test_chosen_snapshots_are_checked(filled: Filled) -> None:
    first, _ = filled.contents

    report = _verify(reopened(filled.store), Level.STRUCTURE, first)

    assert report.snapshots == 1
    with pytest.raises(SnapshotUnknown):
        _verify(reopened(filled.store), Level.STRUCTURE, "2020")


def test_a_snapshot_published_meanwhile_is_no_damage(filled: Filled) -> None:
    """Its chunks are in packs and segments that were not there when the index was read."""
    store = filled.store.copy()

    class Busy(RecordingStore):
        """After the packs were listed, another process backs up."""

        def list(self, prefix):  # type: ignore[no-untyped-def]
            found = list(super().list(prefix))
            if prefix == "packs/" and not self.puts:
                self.puts.append("once")
                tree = {**SECOND, b"new": Thing(_data(9))}
                clock = FixedClock(NOON + 9 * DAY)
                back_up(reopened(self), MemorySource(tree), clock=clock)
            return iter(found)

    busy = Busy()
    busy.objects.update(store.objects)

    assert _verify(reopened(busy)).status == "ok"
    assert len(reopened(busy).snapshot_ids()) == 3


def test_a_store_that_does_not_answer_is_no_damage(filled: Filled) -> None:
    faulty = FaultyStore(filled.store, get=[None] * 6 + [StoreUnavailable("gone")] * 9)

    with pytest.raises(StoreUnavailable):
        _verify(reopened(faulty))


# ---------------------------------------------------------------------- each kind of object


def _flipped(body: bytes) -> bytes:
    at = len(body) // 2
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


HURT = {
    "changed": _flipped,
    "cut": lambda body: body[: len(body) // 2],
    "empty": lambda _body: b"",
    "longer": lambda body: body + b"\0",
    "doubled": lambda body: body + body,
}


def _hurt(store: RecordingStore, name: str, how: str) -> RecordingStore:
    hurt = store.copy()
    body = hurt.objects.pop(name)
    if how != "removed":
        hurt.objects[name] = HURT[how](body)
    return hurt


def _swaps(filled: Filled, others: list[Filled], prefix: str) -> Iterator[tuple[str, bytes]]:
    """Every object of a kind with the content of another one, near or far."""
    names = filled.store.names(prefix)
    for name in names:
        for one in (filled, *others):
            for donor in one.store.names(prefix):
                if (one, donor) != (filled, name):
                    yield name, one.store.objects[donor]


@pytest.mark.parametrize("how", ["removed", *HURT])
@pytest.mark.parametrize("level", [Level.STRUCTURE, Level.DATA])
def test_every_hurt_pack_is_named_with_what_depends_on_it(
    filled: Filled, how: str, level: Level
) -> None:
    for name in filled.store.names("packs/"):
        store = _hurt(filled.store, name, how)

        report = _verify(reopened(store), level)
        error = _first_error(store)

        if level is Level.DATA or how != "changed":
            assert report.status == "damaged"
            (damage,) = [each for each in report.damage if each.object == name]
            assert damage.reason
            assert damage.affected == len(damage.affects) or damage.affected > 100
            if how not in ("longer", "doubled") and error is not None:
                assert damage.affects
        if how not in ("longer", "doubled"):
            assert error is None or "packs/" in error.message


def test_what_depends_on_a_pack_is_named_to_the_entry(filled: Filled) -> None:
    repository = reopened(filled.store)
    first, second = filled.contents
    snapshot = repository.snapshot(second)
    (part,) = snapshot.sources["files"].parts  # type: ignore[index]
    reader = repository.reader()
    entry = next(repository.tree(part.root, reader).entries(b"e"))
    found = repository.load_index().find(entry.refs[:32])  # type: ignore[arg-type]
    assert found is not None
    name = f"packs/{found.pack.id[:2]}/{found.pack.id}"

    report = _verify(reopened(_hurt(filled.store, name, "removed")), Level.STRUCTURE)

    (damage,) = [each for each in report.damage if each.object == name]
    assert f"{second}:files/e" in damage.affects
    assert f"{second}:files/d/b" in damage.affects
    assert not [each for each in damage.affects if each.startswith(first)]


def test_a_damaged_leaf_does_not_hide_what_follows_it() -> None:
    """A tree of many leaves, of which one is lost, and content that is lost after it."""
    store = RecordingStore()
    repository = new_repository(store)
    many = {b"%05d" % number: Thing(kind=EntryKind.SOCKET) for number in range(3000)}
    snapshot = back_up(repository, MemorySource(many)).snapshot
    first = set(store.names("packs/"))
    tree = {**many, b"00000": Thing(kind=EntryKind.FIFO), b"99999": Thing(_data(5))}
    back_up(repository, MemorySource(tree), clock=FixedClock(NOON + DAY))
    (old,) = first
    for name in [*store.names("packs/"), f"snapshots/{snapshot.id}"]:
        if name == old or name.startswith("snapshots/"):
            del store.objects[name]
    content = repository.load_index().find(repository.namer(_data(5)))
    assert content is not None
    lost = f"packs/{content.pack.id[:2]}/{content.pack.id}"
    del store.objects[lost]

    damage = {each.object: each.affects for each in _verify(reopened(store)).damage}

    assert len(damage[old]) >= 1
    assert [each for each in damage[lost] if each.endswith("files/99999")]


@pytest.mark.parametrize("how", ["removed", *HURT])
def test_a_hurt_snapshot_is_named_and_the_others_are_checked(filled: Filled, how: str) -> None:
    for name in filled.store.names("snapshots/"):
        store = _hurt(filled.store, name, how)

        report = _verify(reopened(store))

        if how == "removed":
            assert (report.status, report.snapshots) == ("ok", 1)
            continue
        assert [damage.object for damage in report.damage] == [name]
        assert report.damage[0].affects == (f"snapshot {name.partition('/')[2]}",)
        error = _first_error(store)
        assert error is not None
        assert name in error.message


@pytest.mark.parametrize("how", HURT)
def test_a_hurt_index_object_is_named_and_everything_can_be_read(filled: Filled, how: str) -> None:
    for name in filled.store.names("index/"):
        store = _hurt(filled.store, name, how)

        report = _verify(reopened(store))

        assert [damage.object for damage in report.damage] == [name]
        assert _first_error(store) is None


def test_a_missing_index_object_is_told_and_the_next_backup_heals_it(filled: Filled) -> None:
    for name in filled.store.names("index/"):
        store = _hurt(filled.store, name, "removed")

        report = _verify(reopened(store))
        error = _first_error(store)

        assert report.status == "damaged"
        assert "no index names" in report.damage[0].object
        assert error is not None
        assert "in no pack that the index names" in error.message
        back_up(reopened(store), MemorySource({}), clock=FixedClock(NOON + 9 * DAY))
        assert _verify(reopened(store)).status == "ok"


@pytest.mark.parametrize("how", ["removed", *HURT])
def test_a_hurt_key_object_is_named(filled: Filled, how: str) -> None:
    for name in filled.store.names("keys/"):
        with pytest.raises(RepositoryError, match="keys"):
            reopened(_hurt(filled.store, name, how))


@pytest.mark.parametrize("how", ["removed", "cut", "empty", "longer", "doubled"])
def test_a_hurt_description_is_named(filled: Filled, how: str) -> None:
    with pytest.raises((RepositoryError, RepositoryMissing)):
        reopened(_hurt(filled.store, "format.json", how))


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
            report = _verify(reopened(store))
        except (RepositoryError, ObjectMissing) as error:
            assert error.message
        else:
            assert name in [damage.object for damage in report.damage]
        assert isinstance(_first_error_of(store), KryonixError | None)
    assert tried >= 2


def _first_error_of(store: RecordingStore) -> KryonixError | None:
    try:
        return _first_error(store)
    except KryonixError as error:  # the repository itself does not open
        return error


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
                report = _verify(reopened(store))
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

    assert _verify(reopened(store)).status == "ok"
    assert _first_error(store) is None


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
            if not _is_told(store, name, at):
                harmless.append(name)

    # When it was made stands in its plain description and is bound to nothing; so do the spaces.
    assert set(harmless) <= {"format.json"}
    assert len(harmless) < 60


def _is_told(store: RecordingStore, name: str, at: int) -> bool:
    problem = _problem_of(store)
    if problem is not None:
        named = name in problem or (name == "format.json" and "keys/" in problem)
        assert named, f"byte {at} of {name} changed, and told was: {problem}"
    return problem is not None


def _problem_of(store: RecordingStore) -> str | None:
    """What opening or verifying tells; raises AssertionError where wrong data is read."""
    try:
        repository = reopened(store)
        report = _verify(repository)
    except (RepositoryError, ObjectMissing) as error:
        return f"{error.message}"
    for snapshot, path, content in _read_whole(repository):
        assert _CONTENTS[snapshot, path] == content, f"wrong data in {path} of {snapshot}"
    return " ".join(damage.object for damage in report.damage) or None


def _read_whole(repository: Repository) -> Iterator[tuple[str, str, bytes]]:
    """Every file that can be read, without the threads of a stream."""
    reader = repository.reader()
    for snapshot_id in repository.snapshot_ids():
        try:
            (part,) = repository.snapshot(snapshot_id).sources["files"].parts  # type: ignore[index]
            for entry in repository.tree(part.root, reader).entries():
                if entry.kind is EntryKind.FILE:
                    refs = refs_of(entry, reader.read)
                    content = b"".join(bytes(reader.read(ref.chunk)) for ref in refs)
                    yield snapshot_id, f"files/{entry.text}", content
        except (RepositoryError, ObjectMissing):
            continue
