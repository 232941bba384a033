"""A backup: open it, back up every source at once, publish the snapshot, report."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.states import Completed

from flows.parameters import Source, Tenant
from flows.telling import telling_what_next
from kryonix_backup.model import BackupKind
from tasks.backup import back_up_source, open_backup, publish_snapshot
from tasks.logs import find_logs, keep_log, logs_line, report_logs
from tasks.policy import BACKUPS_LIMIT, HOUR_S, tenant_limit
from tasks.report import report_backup


@flow(
    name="backup-tenant",
    flow_run_name="backup {tenant} {kind}",
    timeout_seconds=24 * HOUR_S,
    description="Back up a tenant's sources into one snapshot.",
)
def backup_tenant(
    tenant: Tenant, kind: BackupKind = BackupKind.FULL, sources: list[Source] | None = None
) -> State[dict[str, Any]]:
    """
    Back up a tenant's sources into one snapshot; of kind log, only what was committed since.

    Run again after a crash it goes on: what is stored is not stored again.

    Args:
        tenant: Id of the tenant, such as acme.
        kind: full reads everything; incremental only what its source knows to have changed; log
            only fetches the transaction log of a database. All restore alike.
        sources: Only these sources, by name; empty means all of the tenant's.
    """
    with telling_what_next():
        # First the tenant's own: who waits for that keeps nobody else from a slot of all.
        with concurrency(tenant_limit(tenant)), concurrency(BACKUPS_LIMIT, strict=True):
            if kind is BackupKind.LOG:
                return _keep_logs(tenant, sources or [])
            opened = open_backup(tenant, kind, sources or [])
            running = [
                back_up_source.submit(tenant, opened["session"], source)
                for source in opened["sources"]
            ]
            results: list[Any] = [source.result() for source in running]
            report = publish_snapshot(tenant, opened["session"], results)
            line = report_backup(tenant, report)
        return Completed(message=line, data=report)


def _keep_logs(tenant: str, sources: list[str]) -> State[dict[str, Any]]:
    keeping = [keep_log.submit(tenant, source) for source in find_logs(tenant, sources)]
    reports: list[Any] = [each.result() for each in keeping]
    report = report_logs(tenant, reports)
    return Completed(message=logs_line(report), data=report)
