"""Every released format is read for ever, by this program and from its description alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.backup.run import back_up_source, begin, publish
from kryonix_backup.clock import SystemClock
from kryonix_backup.crypto.stores.root import master_from
from kryonix_backup.errors import KeyRefused
from kryonix_backup.events import quiet
from kryonix_backup.maintenance.report import Level
from kryonix_backup.maintenance.verify import verify
from kryonix_backup.model import BackupKind, Entry, EntryKind, Phase, SourceName, TenantId
from kryonix_backup.repository.content import Ref, refs_of
from kryonix_backup.repository.repository import Repository
from kryonix_backup.restore.plan import RestoreRequest, load_plan, plan_restore
from kryonix_backup.restore.run import begin_restore, finish_restore, run_phase
from kryonix_backup.sources.files.tree import FilesSource
from kryonix_backup.storage.filesystem import FilesystemStore
from tests.golden.independent import Entry as IndependentEntry
from tests.golden.independent import Reader
from tests.golden.make import ROOTS, SOURCES, TENANT, described, digest, settings

ROOT = os.geteuid() == 0
HERE = Path(__file__).resolve().parent
VARIANTS = sorted(
    path for number in HERE.iterdir() if number.name.isdecimal() for path in number.iterdir()
)


class Golden:
    """A copy of one golden repository, and what it must hold."""

    def __init__(self, variant: Path, scratch: Path) -> None:
        self.root = scratch / "repository"
        shutil.copytree(variant / "repository", self.root)
        self.key = ROOTS[variant.name]
        self.expected: dict[str, Any] = json.loads((variant / "expected.json").read_text())

    def open(self) -> Repository:
        """The repository, as this program sees it."""
        return Repository.open(FilesystemStore(self.root), TENANT, master_from(self.key))

    def read(self) -> Reader:
        """The repository, as its description says that it is read."""
        passphrase, key_file = self.key.passphrase, self.key.key_file
        return Reader(
            self.root,
            TENANT,
            passphrase=passphrase.reveal() if passphrase else b"",
            key_file=key_file.reveal() if key_file else b"",
        )


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    return Golden(request.param, tmp_path_factory.mktemp("golden"))


def test_there_is_a_golden_repository() -> None:
    assert [path.relative_to(HERE).as_posix() for path in VARIANTS] == [
        "1/key-file", "1/keyring", "1/passphrase",
    ]  # fmt: skip


def test_everything_in_it_is_read_as_it_was(golden: Golden) -> None:
    repository = golden.open()

    assert repository.snapshot_ids() == sorted(golden.expected["snapshots"])
    for snapshot_id, expected in golden.expected["snapshots"].items():
        rows = list(described(repository, repository.snapshot(snapshot_id)))
        known = {(row["source"], row["path"]): row for row in rows}
        assert [known[row["source"], row["path"]] for row in expected["rows"]] == expected["rows"]
        assert (len(rows), digest(rows)) == (expected["entries"], expected["digest"])


def test_it_is_sound_to_the_last_byte(golden: Golden) -> None:
    report = verify(golden.open(), Level.DATA, quiet, SystemClock())

    assert (report.status, report.snapshots) == ("ok", 2)


def test_its_journal_is_read(golden: Golden) -> None:
    repository = golden.open()

    plan = load_plan(repository, golden.expected["restore"])
    report = finish_restore(repository, plan)

    assert report.status == "complete"
    assert [step.source for step in plan.steps] == list(SOURCES)


@pytest.mark.parametrize("which", [0, 1])
def test_every_snapshot_restores(golden: Golden, which: int, tmp_path: Path) -> None:
    repository = golden.open()
    snapshot = repository.snapshot_ids()[which]
    targets = {name: f"files://{tmp_path}/{name}" for name in SOURCES}
    plan = plan_restore(repository, RestoreRequest(snapshot, to=targets), SystemClock())
    begin_restore(repository, plan)

    for phase in Phase:
        run_phase(repository, plan, phase, quiet, SystemClock())

    # Only root may give files back to their owners, and set bits that mean something with them.
    assert finish_restore(repository, plan).status in (
        {"complete"} if ROOT else {"complete", "degraded"}
    )
    for row in golden.expected["snapshots"][snapshot]["rows"]:
        assert _looks_like(tmp_path / row["source"], row), row


def _looks_like(root: Path, row: dict[str, Any]) -> bool:
    path = os.path.join(os.fsencode(root), bytes.fromhex(row["path"])).rstrip(b"/")
    if row["kind"] == "symlink":
        return os.readlink(path) == bytes.fromhex(row["target"])
    if row["kind"] == "hardlink":
        first = os.path.join(os.fsencode(root), bytes.fromhex(row["target"]))
        return os.path.samefile(path, first)
    info = os.stat(path)
    bits = 0o7777 if ROOT else 0o777
    same: bool = info.st_mode & bits == row["mode"] & bits and info.st_mtime_ns == row["mtime"]
    if row["kind"] != "file":
        return same
    data = Path(os.fsdecode(path)).read_bytes()
    return same and hashlib.sha256(data).hexdigest() == str(row["sha256"])


def test_a_backup_of_what_was_restored_cuts_and_names_everything_alike(
    golden: Golden, tmp_path: Path
) -> None:
    """Another seed, cut or name would store a tenant's whole data anew after an update."""
    repository = golden.open()
    before = repository.snapshot("latest")
    targets = {name: f"files://{tmp_path}/{name}" for name in SOURCES}
    plan = plan_restore(repository, RestoreRequest(before.id, to=targets), SystemClock())
    begin_restore(repository, plan)
    for phase in Phase:
        run_phase(repository, plan, phase, quiet, SystemClock())

    tenant = settings(tmp_path)
    clock = SystemClock()
    session = begin(repository, BackupKind.FULL, clock)
    results = [
        back_up_source(repository, session, source, FilesSource(source), quiet, clock)
        for source in tenant.sources
    ]
    after = publish(repository, session, results, tenant, clock).snapshot

    for name in SOURCES:
        old, new = (
            _files(repository, each.sources[SourceName(name)].parts[0]) for each in (before, after)
        )
        assert new == old


def _files(repository: Repository, part: Any) -> dict[bytes, tuple[int, list[Ref]]]:
    """Every file's size and chunks."""
    reader = repository.reader()
    entries = [e for e in repository.tree(part.root, reader).entries() if e.refs]
    return {entry.path: (entry.size, list(refs_of(entry, reader.read))) for entry in entries}


# ---------------------------------------------------------------------- the description


def test_the_description_is_enough_to_read_it(golden: Golden) -> None:
    reader = golden.read()
    repository = golden.open()

    for manifest in reader.snapshots()[:2]:
        rows = []
        for name in SOURCES:
            (part,) = manifest["sources"][name]["parts"]
            entries = list(reader.entries(part["root"]))
            assert len(entries) == part["entries"]
            rows += [_row(reader, name, entry) for entry in entries]
        assert digest(rows) == golden.expected["snapshots"][manifest["id"]]["digest"]
        assert manifest == json.loads(json.dumps(repository.snapshot(manifest["id"]).to_plain()))


def _row(reader: Reader, source: str, entry: IndependentEntry) -> dict[str, Any]:
    row: dict[str, Any] = {
        "source": source,
        "path": entry.path.hex(),
        "kind": entry.kind,
        "size": entry.size,
        "mode": entry.meta["mode"],
        "mtime": entry.meta["mtime"],
    }
    if "target" in entry.meta:
        row["target"] = entry.meta["target"].hex()
    if entry.kind == "file":
        row["sha256"] = hashlib.sha256(reader.content(entry)).hexdigest()
    return row


def test_packs_say_themselves_what_the_index_says(golden: Golden) -> None:
    reader = golden.read()

    for chunk, place in reader.directories():
        assert chunk in reader.index
        assert place == reader.index[chunk] or place[0] != reader.index[chunk][0]


def test_the_journal_is_as_described(golden: Golden) -> None:
    records = golden.read().journal(golden.expected["restore"])

    assert [next(iter(record)) for record in records] == [
        "plan", *["phase"] * 5, "validated", "switched", "phase",
    ]  # fmt: skip


def test_another_key_or_tenant_does_not_open_it(golden: Golden) -> None:
    store = FilesystemStore(golden.root)
    other = next(root for root in ROOTS.values() if root is not golden.key)

    with pytest.raises(KeyRefused):
        Repository.open(store, TENANT, master_from(other))
    with pytest.raises(KeyRefused):
        Repository.open(store, TenantId("silver"), master_from(golden.key))


# ---------------------------------------------------------------------- what is in it


def test_it_holds_a_case_of_every_form(golden: Golden) -> None:
    """So that a form which a later version forgets is missed by the tests above."""
    repository = golden.open()
    reader = repository.reader()
    index = list(repository.load_index())
    first, second = (repository.snapshot(each) for each in repository.snapshot_ids()[:2])
    part = first.sources[SourceName("files")].parts[0]
    entries = list(repository.tree(part.root, reader).entries())

    assert {found.place.frame.codec.name for _, found in index} == {"STORE", "ZSTD", "BROTLI"}
    assert max(found.place.start for _, found in index) > 0
    assert part.root.levels >= 1
    assert {entry.kind for entry in entries} == {
        EntryKind.DIRECTORY, EntryKind.FILE, EntryKind.SYMLINK, EntryKind.HARDLINK, EntryKind.FIFO,
    }  # fmt: skip
    assert [entry.path for entry in entries if entry.indirect] == [b"zeros"]
    assert [entry.path for entry in entries if entry.meta.get("holes")] == [b"sparse"]
    assert _stamps(entries) == {4}
    assert second.sources[SourceName("files")].entries_unchanged >= 700
    assert second.finished - first.finished < timedelta(hours=1)


def _stamps(entries: list[Entry]) -> set[int]:
    return {len(entry.stamp) for entry in entries if entry.kind is EntryKind.FILE}
