"""A flow run, followed until it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact, FlowRun

from kryonix_backup.clock import Clock
from tasks.run import RESTORE, SNAPSHOT, STATUS

_POLL_S = 1.0
# 3 is kept for what is complete but for the entries its report names.
EXIT_FAILED, EXIT_INCOMPLETE = 1, 3


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a flow run stands, and what it has shown so far."""

    run: FlowRun
    url: str
    table: list[dict[str, Any]]

    @property
    def exit_code(self) -> int:
        """0 for a run that is completed, and so is what it did."""
        if self.run.state is None or not self.run.state.is_completed():
            return EXIT_FAILED
        return 0 if self.run.labels.get(STATUS) == "complete" else EXIT_INCOMPLETE

    def to_plain(self) -> dict[str, Any]:
        """The run as the command prints it with --json."""
        state, labels = self.run.state, self.run.labels
        found = {"status": STATUS, "snapshot": SNAPSHOT, "restore": RESTORE}
        return {
            "flow_run": str(self.run.id),
            "name": self.run.name,
            "state": state.name if state else None,
            "message": state.message if state else None,
            "url": self.url,
            "duration_s": round(self.run.total_run_time.total_seconds(), 3),
            **{name: labels[label] for name, label in found.items() if label in labels},
            "table": self.table,
        }


def look(client: SyncPrefectClient, run_id: UUID, url: str) -> RunResult:
    """How the run stands now."""
    run = client.read_flow_run(run_id)
    tables = [each for each in artifacts(client, run_id) if each.type == "table"]
    newest = json.loads(str(tables[-1].data)) if tables else []
    return RunResult(run, f"{url}/runs/flow-run/{run_id}", newest)


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


def artifacts(client: SyncPrefectClient, run_id: UUID) -> list[Artifact]:
    """What the run has shown, oldest first."""
    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    found = client.read_artifacts(artifact_filter=chosen)
    return sorted(found, key=lambda each: str(each.created))


def _line(run: FlowRun, shown: list[Artifact]) -> str:
    state = run.state.name if run.state else "Unknown"
    bars = [each for each in shown if each.type == "progress"]
    going = [each for each in bars if float(str(each.data or 0)) < 100]
    return "; ".join([f"{run.name}: {state}", *(str(each.description) for each in going)])
