"""Restores that are stopped at random moments, and two of them at once."""

from __future__ import annotations

import shutil
import signal
from glob import glob
from pathlib import Path
from random import Random

import pytest

from kryonix_backup.errors import AlreadyRunning, Interrupted, RestoreError, WouldOverwrite
from kryonix_backup.model import Phase
from kryonix_backup.sdk.client import Client, RestorePlan, RestoreRequest
from kryonix_backup.sdk.tenants import connect
from tests.integration import trees
from tests.integration.command import Command
from tests.integration.stopping import Stopping

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def stopping(tmp_path_factory: pytest.TempPathFactory) -> Stopping:
    """Restores of one snapshot, stopped at random moments."""
    return Stopping(tmp_path_factory.mktemp("stopping"), seed=3)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT], ids=lambda sign: sign.name)
def test_a_restore_that_was_stopped_is_gone_on_with(stopping: Stopping, by: signal.Signals) -> None:
    for _ in range(2):
        stopping.resumed(by)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT], ids=lambda sign: sign.name)
def test_a_restore_over_what_was_there_that_was_stopped_is_undone_to_the_last_byte(
    stopping: Stopping, by: signal.Signals
) -> None:
    for _ in range(2):
        stopping.rolled_back(by)


def test_an_interrupted_restore_says_how_to_go_on_and_how_to_go_back(stopping: Stopping) -> None:
    outcome = stopping.interrupted_while_loading()

    assert outcome.code == Interrupted.exit_code, outcome
    (restore,) = stopping.begun()
    assert f"kryonix restore acme --resume {restore}" in outcome.hint
    assert f"kryonix rollback acme {restore}" in outcome.hint
    stopping.command.run("rollback", "acme", restore)
    assert not stopping.target.exists()


class Two:
    """Two restores, of an old and a new snapshot, loaded beside one target and ready to switch."""

    def __init__(self, command: Command, work: Path, *, overwrite: bool) -> None:
        self.command = command
        self.target = work / "target"
        tree = work / "tree"
        trees.grow(tree, Random(1), small=700, large_mib=1)
        region = f"primary=file://{work / 'repository'}"
        command.run("tenant", "add", "acme", "--region", region, "--source", f"docs=files://{tree}")
        self.states = []
        self.plans: list[RestorePlan] = []
        self.client: Client = connect("acme", env=command.environment())
        if overwrite:
            shutil.copytree(tree, self.target, symlinks=True)
        for _ in range(2):
            snapshot = command.report("backup", "acme")["snapshot"]
            self.states.append(trees.state(tree))
            self.plans.append(self._loaded(snapshot, overwrite=overwrite))
            for path in sorted(tree.rglob("*.txt")):
                path.write_bytes(path.read_bytes() + b"changed")

    def _loaded(self, snapshot: str, *, overwrite: bool) -> RestorePlan:
        to = {"docs": f"files://{self.target}"}
        request = RestoreRequest(snapshot=snapshot, to=to, overwrite=overwrite)
        plan = self.client.plan_restore(request)
        self.client.begin_restore(plan)
        for phase in list(Phase)[:-1]:
            self.client.run_phase(plan, phase)
        return plan

    def switch_both(self) -> list[int]:
        """Let both go on at once; their exit codes."""
        words = [("restore", "acme", "--resume", plan.restore) for plan in self.plans]
        running = [self.command.start(*each) for each in words]
        return [
            self.command.finished(process, *each).code
            for process, each in zip(running, words, strict=True)
        ]


def test_two_restores_at_once_never_leave_a_mixture(machine: Command, tmp_path: Path) -> None:
    two = Two(machine, tmp_path, overwrite=True)

    codes = two.switch_both()
    for code, plan in zip(codes, two.plans, strict=True):
        if code == AlreadyRunning.exit_code:  # then it is whole beside the target, and waits
            machine.run("restore", "acme", "--resume", plan.restore)

    assert set(codes) <= {0, AlreadyRunning.exit_code}
    wrong = [trees.differences(trees.state(two.target), state) for state in two.states]
    assert [] in wrong, f"{codes}: {len(wrong[0])} and {len(wrong[1])} entries differ"


def test_a_restore_waits_for_another_one_that_stopped_half_way(
    machine: Command, tmp_path: Path
) -> None:
    two = Two(machine, tmp_path, overwrite=True)
    first, second = ("restore", "acme", "--resume", two.plans[0].restore), two.plans[1].restore
    process = machine.start(*first)
    while not glob(f"{two.target}/.kryonix-replaced-*/tree/small/1*"):
        assert process.poll() is None
    process.kill()
    machine.finished(process, *first)

    refused = machine.run("restore", "acme", "--resume", second, expect=RestoreError.exit_code)

    assert f"restore {two.plans[0].restore} was stopped" in refused.message
    machine.run(*first)
    assert not trees.differences(trees.state(two.target), two.states[0])


def test_of_two_restores_at_once_that_may_not_overwrite_one_gives_way(
    machine: Command, tmp_path: Path
) -> None:
    two = Two(machine, tmp_path, overwrite=False)

    codes = two.switch_both()
    if AlreadyRunning.exit_code in codes:
        loser = two.plans[codes.index(AlreadyRunning.exit_code)].restore
        gone = WouldOverwrite.exit_code
        machine.run("restore", "acme", "--resume", loser, expect=gone)

    assert set(codes) in ({0, WouldOverwrite.exit_code}, {0, AlreadyRunning.exit_code})
    won = two.states[codes.index(0)]
    # The loser puts the directory's own time back to what it was when it began to load.
    assert set(trees.differences(trees.state(two.target), won)) <= {"."}
