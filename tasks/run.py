"""Small facts about a flow run that others look up: labels and tags, never a secret."""

from __future__ import annotations

from prefect import runtime
from prefect.client.orchestration import get_client

RESTORE = "kryonix.restore"
SNAPSHOT = "kryonix.snapshot"
STATUS = "kryonix.status"


def label_run(**facts: str) -> None:
    """
    Write labels such as ``snapshot="2026…"`` on the flow run that this task belongs to.

    A hook in the worker, or `kryonix flow --watch` on another machine, reads them there.
    """
    labels: dict[str, bool | int | float | str] = {
        f"kryonix.{name}": value for name, value in facts.items()
    }
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(runtime.flow_run.id, labels)


def tag_run(*tags: str) -> None:
    """Add tags to the flow run that this task belongs to, however it was started."""
    with get_client(sync_client=True) as client:
        there = client.read_flow_run(runtime.flow_run.id).tags
        if missing := [tag for tag in tags if tag not in there]:
            client.update_flow_run(runtime.flow_run.id, tags=[*there, *missing])
