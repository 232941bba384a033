"""One tenant, end to end, through the one door."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kryonix_backup.catalog.record import RunRecord
from kryonix_backup.errors import (
    ConfigError,
    Interrupted,
    KeyRefused,
    KryonixError,
    RestoreUnknown,
    SnapshotUnknown,
    UnsafePath,
    ValidationFailed,
    WouldOverwrite,
)
from kryonix_backup.events import Listener, Progress, quiet
from kryonix_backup.model import BackupKind, Phase
from kryonix_backup.restore.plan import RestorePlan
from kryonix_backup.restore.report import PhaseResult
from kryonix_backup.sdk.client import Client, Level, RestoreRequest, Session, SourceResult
from kryonix_backup.sdk.wiring import outbox
from kryonix_backup.settings import RootKey, Secret
from tests.sdk.conftest import Machine


@pytest.fixture
def client(machine: Machine) -> Client:
    return Client.onboard(machine.settings, machine.key, env=machine.env)


def runs(machine: Machine) -> list[RunRecord]:
    return [letter.run for letter in outbox(machine.env).letters()]


def beside(machine: Machine) -> RestoreRequest:
    return RestoreRequest(to={"files": f"files://{machine.root / 'out'}"})


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_what_was_backed_up_comes_back(client: Client, machine: Machine) -> None:
    backed_up = client.backup()
    report = client.restore(beside(machine))

    assert (backed_up.status, report.status) == ("complete", "complete")
    assert tree(machine.root / "out") == tree(machine.files)


def test_a_second_backup_stores_next_to_nothing(client: Client, machine: Machine) -> None:
    first = client.backup().to_plain()
    (machine.files / "deep" / "letter.txt").write_text("dear other reader")
    second = client.backup(kind=BackupKind.INCREMENTAL).to_plain()

    assert second["parent"] == first["snapshot"]
    assert second["bytes_new"] < 10_000
    assert [each.id for each in client.snapshots()] == [first["snapshot"], second["snapshot"]]


def test_a_backup_in_steps_may_cross_processes(client: Client, machine: Machine) -> None:
    session = client.begin_backup(BackupKind.FULL)
    other = Client(machine.settings, machine.key, env=machine.env)
    result = other.back_up_source(Session.from_plain(session.to_plain()), "files")
    third = Client(machine.settings, machine.key, env=machine.env)
    report = third.publish_backup(session, [SourceResult.from_plain(result.to_plain())])

    assert report.snapshot.id == session.snapshot
    assert client.snapshot("latest").id == session.snapshot


def test_a_restore_in_steps_may_cross_processes(client: Client, machine: Machine) -> None:
    client.backup()
    plan = client.plan_restore(beside(machine))
    client.begin_restore(plan)
    for phase in Phase:
        other = Client(machine.settings, machine.key, env=machine.env)
        other.run_phase(other.resume_restore(plan.restore), phase)
    report = client.finish_restore(plan)

    assert report.status == "complete"
    assert tree(machine.root / "out") == tree(machine.files)


def test_looking_finds_what_is_there(client: Client, machine: Machine) -> None:
    first = client.backup().snapshot.id
    (machine.files / "new").write_text("new")
    second = client.backup().snapshot.id

    assert "files/deep/letter.txt" in [entry.path for entry in client.ls(first)]
    assert b"".join(client.cat(first, "files/deep/letter.txt")) == b"dear reader"
    assert [
        (change.status, change.path)
        for change in client.diff(first, second)
        if change.status == "added"
    ] == [("added", "files/new")]
    assert client.verify(Level.DATA).status == "ok"


def test_progress_is_told(client: Client) -> None:
    told: list[Progress] = []
    client.backup(listener=told.append)

    assert told
    assert told[-1].bytes_done > 0


def test_a_wrong_source_is_refused_before_any_is_read(client: Client) -> None:
    with pytest.raises(ConfigError, match="no source 'nope'"):
        client.backup(sources=["files", "nope"])
    assert client.snapshots() == []


def test_a_tenant_without_sources_cannot_be_backed_up(machine: Machine) -> None:
    bare = replace(machine.settings, sources=())
    with pytest.raises(ConfigError, match="no source to back up"):
        Client.onboard(bare, machine.key, env=machine.env).backup()


def test_every_error_names_the_tenant(client: Client, machine: Machine) -> None:
    stranger = Client(machine.settings, RootKey(key_file=Secret(b"x" * 32)), env=machine.env)
    for ask, error in (
        (stranger.snapshots, KeyRefused),
        (lambda: client.snapshot("0"), SnapshotUnknown),
        (lambda: list(client.ls("0")), SnapshotUnknown),
        (lambda: list(client.cat("0", "x")), SnapshotUnknown),
        (lambda: list(client.diff("0", "1")), SnapshotUnknown),
        (lambda: client.resume_restore("0"), RestoreUnknown),
        (lambda: client.backup(sources=["nope"]), ConfigError),
        (lambda: client.backup(kind=BackupKind.LOG), ConfigError),
        (lambda: Client(machine.settings, machine.key, region="mars"), ConfigError),
    ):
        with pytest.raises(error) as caught:
            ask()
        assert isinstance(caught.value, KryonixError)
        assert caught.value.tenant == "acme"


def test_every_run_leaves_its_record(client: Client, machine: Machine) -> None:
    backup = client.backup()
    restore = client.restore(beside(machine))
    client.verify(Level.STRUCTURE)
    with pytest.raises(ConfigError):
        client.begin_backup(BackupKind.LOG)

    kept = {(run.operation, run.status): run for run in runs(machine)}
    assert set(kept) == {
        ("backup", "complete"), ("restore", "complete"), ("verify", "ok"), ("backup", "failed"),
    }  # fmt: skip
    assert kept["backup", "complete"].run == backup.snapshot.id
    assert kept["backup", "complete"].bytes_read == backup.to_plain()["bytes_read"]
    assert kept["restore", "complete"].run == restore.plan.restore
    assert kept["restore", "complete"].snapshot == backup.snapshot.id
    assert kept["verify", "ok"].kind == "structure"


def test_a_restore_that_fails_leaves_the_target_as_it_was(client: Client, machine: Machine) -> None:
    client.backup()
    before = tree(machine.files)

    with pytest.raises(WouldOverwrite):
        client.restore(RestoreRequest())

    assert tree(machine.files) == before
    last = max(
        (run for run in runs(machine) if run.operation == "restore"), key=lambda run: run.finished
    )
    assert last.status == "rolled back"
    assert last.error


def test_where_the_undoing_fails_too_the_cause_is_told_first(
    client: Client, machine: Machine
) -> None:
    """A target that nobody can get to can be neither restored to nor put back."""
    client.backup()
    to = {"files": f"files://{machine.files / 'numbers' / 'below'}"}

    with pytest.raises(UnsafePath, match="cannot be restored to") as caught:
        client.restore(RestoreRequest(to=to))

    (begun,) = [run.run for run in runs(machine) if run.operation == "restore"]
    assert caught.value.hint.startswith(UnsafePath.hint)
    assert f"'kryonix rollback {client.tenant} {begun}'" in caught.value.hint


def test_nothing_is_restored_among_the_backups(client: Client, machine: Machine) -> None:
    client.backup()

    with pytest.raises(ConfigError, match="where the backups are"):
        client.restore(RestoreRequest(to={"files": f"files://{machine.root / 'secondary'}"}))


def _finished(run: RunRecord) -> object:
    return run.finished


def test_a_restore_that_was_rolled_back_does_not_go_on(client: Client, machine: Machine) -> None:
    client.backup()
    plan = client.plan_restore(beside(machine))
    client.begin_restore(plan)
    client.roll_back_restore(plan)

    with pytest.raises(ValidationFailed, match="rolled back"):
        client.carry_out(plan)
    assert client.finish_restore(plan).status == "rolled back"
    assert not (machine.root / "out").exists()


def test_an_interrupted_restore_goes_on(client: Client, machine: Machine) -> None:
    client.backup()

    plan = client.plan_restore(beside(machine))
    client.begin_restore(plan)
    client.run_phase(plan, Phase.INFRASTRUCTURE_PREPARATION)
    interrupted = _InterruptedClient(machine.settings, machine.key, env=machine.env)
    with pytest.raises(Interrupted, match=plan.restore) as caught:
        interrupted.carry_out(plan)
    assert f"--resume {plan.restore}" in caught.value.hint

    report = client.carry_out(client.resume_restore(plan.restore))
    assert report.status == "complete"
    assert tree(machine.root / "out") == tree(machine.files)


class _InterruptedClient(Client):
    """A client whose operator presses Ctrl-C when files are to be restored."""

    def run_phase(self, plan: RestorePlan, phase: Phase, listener: Listener = quiet) -> PhaseResult:
        if phase is Phase.FILE_STORAGE_RESTORE:
            raise KeyboardInterrupt
        return super().run_phase(plan, phase)


def test_a_region_and_the_key_are_enough(client: Client, machine: Machine) -> None:
    client.backup()
    shutil.rmtree(machine.root / "home")

    bare = Client.from_regions(
        machine.settings.id, [machine.region("primary")], machine.key, env=machine.env
    )

    assert bare.settings == machine.settings
    assert bare.restore(beside(machine)).status == "complete"
    assert tree(machine.root / "out") == tree(machine.files)


def test_a_repository_that_moved_is_read_where_it_is(client: Client, machine: Machine) -> None:
    client.backup()
    shutil.move(machine.root / "primary", machine.root / "moved")
    moved = replace(machine.region("moved"), name=machine.region("primary").name)

    bare = Client.from_regions(machine.settings.id, [moved], machine.key, env=machine.env)

    assert bare.settings.primary == moved
    assert bare.settings.region("secondary") == machine.region("secondary")
    assert len(bare.snapshots()) == 1


def test_an_empty_repository_says_what_it_knows(client: Client, machine: Machine) -> None:
    bare = Client.from_regions(
        client.tenant, [machine.region("secondary")], machine.key, env=machine.env
    )

    assert bare.snapshots() == []
    assert bare.newest_settings() is None
    assert bare.settings.sources == ()


def test_another_region_can_be_read(client: Client, machine: Machine) -> None:
    client.backup()
    other = Client(machine.settings, machine.key, env=machine.env, region="secondary")

    assert other.snapshots() == []  # copies between regions are not made yet
