"""What others look up about a flow run: tags, and facts such as its snapshot. Never a secret."""

from __future__ import annotations

import json
from uuid import UUID

from prefect import runtime
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact

_KEY = "run-"


def note_facts(tenant: str, **facts: str) -> None:
    """
    Leave facts such as ``snapshot="2026…"`` with the flow run that this task belongs to.

    A hook in the worker, or `kryonix flow --watch` on another machine, finds them with `facts_of`.
    They are an artifact because that is a plain insert: labels are read and then written in one
    transaction, which an SQLite server under load answers with "database is locked" (measured:
    2 s more for every other run).
    """
    rows = [{"Fact": name, "Value": value} for name, value in facts.items()]
    create_table_artifact(
        rows,
        key=f"{_KEY}{tenant}",
        description=f"Facts of the newest run of {tenant}, for programs",
    )


def facts_of(shown: list[Artifact]) -> dict[str, str]:
    """The facts among a run's artifacts; what was noted last counts."""
    noted = [json.loads(str(each.data)) for each in shown if is_facts(each)]
    return {row["Fact"]: row["Value"] for rows in noted for row in rows}


def is_facts(shown: Artifact) -> bool:
    """Whether `note_facts` has left this."""
    return (shown.key or "").startswith(_KEY)


def artifacts(client: SyncPrefectClient, run_id: UUID) -> list[Artifact]:
    """What a flow run has shown, oldest first."""
    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    found = client.read_artifacts(artifact_filter=chosen)
    return sorted(found, key=lambda each: str(each.created))


def tag_run(*tags: str) -> None:
    """Add tags to the flow run that this task belongs to, where it was started without them."""
    if missing := [tag for tag in tags if tag not in runtime.flow_run.tags]:
        with get_client(sync_client=True) as client:
            there = client.read_flow_run(runtime.flow_run.id).tags
            client.update_flow_run(runtime.flow_run.id, tags=[*there, *missing])
