"""A flow run, followed until it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import Artifact, FlowRun

from kryonix_backup.clock import Clock
from tasks.run import artifacts, facts_of, is_facts

_POLL_S = 0.5
# 3 is kept for what is complete but for the entries its report names.
EXIT_FAILED, EXIT_INCOMPLETE = 1, 3


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a flow run stands, and what it has shown so far."""

    run: FlowRun
    url: str
    facts: dict[str, str]
    table: list[dict[str, Any]]

    @property
    def exit_code(self) -> int:
        """0 for a run that is completed, and so is what it did."""
        if self.run.state is None or not self.run.state.is_completed():
            return EXIT_FAILED
        return 0 if self.facts.get("status") == "complete" else EXIT_INCOMPLETE

    def to_plain(self) -> dict[str, Any]:
        """The run as the command prints it with --json."""
        state = self.run.state
        return {
            "flow_run": str(self.run.id),
            "name": self.run.name,
            "state": state.name if state else None,
            "message": state.message if state else None,
            "url": self.url,
            "duration_s": round(self.run.total_run_time.total_seconds(), 3),
            **self.facts,
            "table": self.table,
        }


def look(client: SyncPrefectClient, run_id: UUID, url: str) -> RunResult:
    """How the run stands now."""
    run = client.read_flow_run(run_id)
    shown = artifacts(client, run_id)
    tables = [each for each in shown if each.type == "table" and not is_facts(each)]
    newest = json.loads(str(tables[-1].data)) if tables else []
    return RunResult(run, f"{url}/runs/flow-run/{run_id}", facts_of(shown), newest)


def follow(
    client: SyncPrefectClient, run_id: UUID, url: str, clock: Clock, tell: Callable[[str], None]
) -> RunResult:
    """
    Return when the run has ended; ``tell`` is given a line whenever something has changed.

    Leaving it by Ctrl-C does nothing to the run.
    """
    told = ""
    while True:
        run = client.read_flow_run(run_id)
        if run.state is not None and run.state.is_final():
            return look(client, run_id, url)
        line = _line(run, artifacts(client, run_id))
        if line != told:
            tell(line)
            told = line
        clock.sleep(_POLL_S)


def _line(run: FlowRun, shown: list[Artifact]) -> str:
    state = run.state.name if run.state else "Unknown"
    bars = [each for each in shown if each.type == "progress"]
    going = [each for each in bars if float(str(each.data or 0)) < 100]
    return "; ".join([f"{run.name}: {state}", *(str(each.description) for each in going)])
