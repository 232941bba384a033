"""
The demo's story: what an operator types, and what it comes to.

Every step is a `kryonix` command with ``--json``, so that the demo shows nothing that a person
could not do.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from deployments.demo_data import build, edit
from deployments.demo_database import Accident, DemoDatabase
from deployments.demo_inventory import Inventory, compare, take
from deployments.demo_table import Step
from kryonix_backup.clock import Clock
from kryonix_backup.errors import KryonixError, ValidationFailed

Answer = TypeVar("Answer")

TENANT = "acme"
SOURCE, DATABASE = "files", "db"
_SHIPPED_EVERY_S = 5
_PATIENCE_S = 60.0


class Operator:
    """Types `kryonix` commands in the demo's home and reads their answers."""

    def __init__(self, home: Path, console: Console, env: Mapping[str, str]) -> None:
        self.log = home / "demo.log"
        self._console = console
        self._env = env

    def kryonix(self, *words: str) -> dict[str, Any]:
        """
        The answer of one command, as its ``--json`` prints it.

        Raises KryonixError with the end of what the command said.
        """
        typed = f"kryonix {shlex.join(words)}"
        self._console.print(f"$ {typed}", style="dim", highlight=False, soft_wrap=True)
        command = [str(Path(sys.executable).with_name("kryonix")), *words, "--json"]
        with self.log.open("a") as log:
            ended = subprocess.run(
                command, env=dict(self._env), stdout=subprocess.PIPE, stderr=log, text=True,
                stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        if ended.returncode:
            raise KryonixError(
                f"'{typed}' ended with code {ended.returncode}: {_reason(ended.stdout)}",
                f"Run the demo with --keep and look at {self.log}.",
            )
        answer = json.loads(ended.stdout)
        assert isinstance(answer, dict)
        return answer


def _reason(answer: str) -> str:
    """Why a command failed: an error's message, or the state that a flow run ended in."""
    try:
        told = json.loads(answer)
    except ValueError:
        return "it gave no answer"
    return str(told.get("error", told).get("message"))


class Story:
    """The steps of the demo, in order, and what they came to."""

    def __init__(
        self, home: Path, database: DemoDatabase, operator: Operator, clock: Clock
    ) -> None:
        self.steps: list[Step] = []
        self._files = home / "tenant-files"
        self._beside = home / "first-state-restored"
        self._database = database
        self._operator = operator
        self._clock = clock

    def tell(self, mib: int, regions: Mapping[str, str]) -> None:
        """All of it; raises ValidationFailed when anything does not come back as it was."""
        self._add("make its files", lambda: build(self._files, mib))
        self._add("fill its database", self._database.fill)
        first = take(self._files)
        self._add("add the tenant", lambda: self._add_tenant(regions))
        with self._database.worked_with():
            self._tell_losses(first)

    def _tell_losses(self, first: Inventory) -> None:
        """Backups while orders come in, then everything that can be lost is."""
        snapshot = self._back_up("back up (flow)")
        self._add("follow its log (flow)", self._follow)
        self._add("change 3 %", lambda: edit(self._files))
        second = take(self._files)
        self._back_up("back up again (flow)", "kind=incremental")
        self._add("delete all files", lambda: shutil.rmtree(self._files))
        accident = self._database.bad_delete()
        self.steps.append(Step("DELETE without WHERE", 0.0))
        self._restore(
            "restore newest (flow)", self._files, second,
            "flow", "restore", TENANT, f'sources=["{SOURCE}"]', "--watch",
        )  # fmt: skip
        self._restore(
            "restore first (CLI)", self._beside, first,
            "restore", TENANT, "--source", SOURCE,
            "--snapshot", snapshot, "--to", f"{SOURCE}=files://{self._beside}",
        )  # fmt: skip
        self._restore_database(accident)

    def _timed(self, work: Callable[[], Answer]) -> tuple[Answer, float]:
        began = self._clock.monotonic()
        answer = work()
        return answer, self._clock.monotonic() - began

    def _add(self, name: str, work: Callable[[], object]) -> None:
        _, duration_s = self._timed(work)
        self.steps.append(Step(name, duration_s))

    def _add_tenant(self, regions: Mapping[str, str]) -> None:
        words = [word for name, url in regions.items() for word in ("--region", f"{name}={url}")]
        self._operator.kryonix(
            "tenant", "add", TENANT, "--tier", "enterprise", *words,
            "--source", f"{SOURCE}=files://{self._files}",
            "--source", f"{DATABASE}={self._database.url}",
        )  # fmt: skip
        self._operator.kryonix("source", "prepare", TENANT, DATABASE)

    def _follow(self) -> None:
        self._operator.kryonix("flow", "follow", TENANT, f"every_s={_SHIPPED_EVERY_S}")

    def _back_up(self, name: str, *parameters: str) -> str:
        run, duration_s = self._timed(
            lambda: self._operator.kryonix("flow", "backup", TENANT, *parameters, "--watch")
        )
        listed = self._operator.kryonix("snapshots", TENANT)["snapshots"]
        (taken,) = (row for row in listed if row["id"] == run["snapshot"])
        size, new, stored = (
            sum(source[figure] for source in taken["sources"].values())
            for figure in ("bytes_total", "bytes_new", "bytes_stored")
        )
        self.steps.append(Step(name, duration_s, size, new, stored))
        return str(run["snapshot"])

    def _restore(self, name: str, root: Path, expected: Inventory, *words: str) -> None:
        _, duration_s = self._timed(lambda: self._operator.kryonix(*words))
        found = compare(expected, take(root))
        if found.differences:
            raise ValidationFailed(
                f"{len(found.differences)} of {found.entries} entries did not come back as they"
                f" were: {'; '.join(found.differences[:3])}"
            )
        self.steps.append(Step(name, duration_s, restored=found.bytes, compared=found.entries))

    def _restore_database(self, accident: Accident) -> None:
        words = (
            "restore", TENANT, "--source", DATABASE, "--at", accident.at.isoformat(),
            "--to", f"{DATABASE}={self._database.url_restored}",
        )  # fmt: skip
        answer, duration_s = self._timed(lambda: self._once_shipped(words))
        found = self._database.digest(self._database.restored)
        if found != accident.before:
            raise ValidationFailed(
                f"the database of {accident.at.isoformat()} did not come back as it was:"
                f" {found.orders} orders instead of {accident.before.orders}"
            )
        self.steps.append(
            Step(
                "restore db (CLI)",
                duration_s,
                restored=sum(phase["bytes"] for phase in answer["phases"]),
                compared=found.orders,
            )
        )

    def _once_shipped(self, words: Sequence[str]) -> dict[str, Any]:
        """The answer of a restore, as soon as the log that it needs was kept."""
        end = self._clock.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._operator.kryonix(*words)
            except KryonixError as error:
                if "does not reach" not in error.message or self._clock.monotonic() > end:
                    raise
            self._clock.sleep(1.0)
