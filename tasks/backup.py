"""The steps of a backup as tasks: open it, back up each source, publish the snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from prefect import task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from blocks.names import qualified
from kryonix_backup.errors import ConfigError
from kryonix_backup.model import BackupKind
from kryonix_backup.sdk.client import Session, SourceResult
from tasks.connection import connect
from tasks.policy import HOUR_S, MINUTE_S, POLICY
from tasks.progress import ProgressBoard
from tasks.report import source_line
from tasks.run import tag_run

Plain = dict[str, Any]


class OpenedBackup(TypedDict):
    """A backup that has begun: its session, and the sources it is to back up."""

    session: Plain
    sources: list[str]


@task(
    name="open the backup",
    task_run_name="open the backup of {tenant}",
    timeout_seconds=10 * MINUTE_S,
    **POLICY,
)
def open_backup(tenant: str, kind: BackupKind, sources: Sequence[str]) -> OpenedBackup:
    """Begin a backup of these sources, or of all; a wrong name is refused before any is read."""
    client = connect(tenant)
    settings = client.settings
    chosen = [settings.source(name).name for name in dict.fromkeys(sources)]
    names = chosen or [source.name for source in settings.sources]
    if not names:
        raise ConfigError(f"tenant {tenant} has no source to back up", "Register it with --source.")
    session = client.begin_backup(kind)
    tag_run(f"tenant:{tenant}", f"tier:{settings.tier}", "backup")
    return OpenedBackup(session=session.to_plain(), sources=[*names])


# No time limit of its own: Prefect cannot stop a task that runs in a thread. The flow's limit
# ends the process, and the store's client limits every request.
@task(name="back up a source", task_run_name="back up {source} of {tenant}", **POLICY)
def back_up_source(tenant: str, session: Plain, source: str) -> State[Plain]:
    """Back up one source; only its counts leave the task."""
    with ProgressBoard(qualified(tenant, source), f"back up {source} of {tenant}") as board:
        result = connect(tenant).back_up_source(Session.from_plain(session), source, board.listen)
    return Completed(message=source_line(result), data=result.to_plain())


@task(
    name="publish the snapshot",
    task_run_name="publish the snapshot of {tenant}",
    timeout_seconds=HOUR_S,
    **POLICY,
)
def publish_snapshot(tenant: str, session: Plain, results: Sequence[Plain]) -> Plain:
    """Make the snapshot count: from here on it can be restored."""
    done = [SourceResult.from_plain(result) for result in results]
    report = connect(tenant).publish_backup(Session.from_plain(session), done)
    return report.to_plain()
