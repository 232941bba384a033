"""Taking a tenant off the server again: its deployments, its blocks, its limit."""

from __future__ import annotations

from collections.abc import Iterator

from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound

from blocks.key import KeyBlock
from blocks.names import backup_deployment
from blocks.region import RegionBlock
from blocks.saved import saved
from blocks.tenant import TenantBlock
from deployments.register import KEYS_FLOW
from kryonix_backup.model import BackupKind, TenantId
from tasks.policy import tenant_limit


def withdraw(client: SyncPrefectClient, tenant: TenantId) -> list[str]:
    """
    Take everything of the tenant off the server, whether it is registered here or not; what it was.

    Runs that were queued or are under way stay, and those that have not begun find no tenant any
    more. What other tenants share stays.
    """
    deployments = [*_deployments(client, tenant)]
    blocks = [*_blocks(client, tenant)]
    return [*deployments, *blocks, *_limit(client, tenant)]


def _deployments(client: SyncPrefectClient, tenant: TenantId) -> Iterator[str]:
    names = [backup_deployment(tenant, kind) for kind in BackupKind]
    for name in [*names, f"{KEYS_FLOW}/{tenant}"]:
        try:
            client.delete_deployment(client.read_deployment_by_name(name).id)
        except ObjectNotFound:
            continue
        yield f"deployment {name}"


def _blocks(client: SyncPrefectClient, tenant: TenantId) -> Iterator[str]:
    """The tenant's own first: without it nobody loads the others."""
    try:
        regions = saved(TenantBlock, tenant).regions
    except ValueError:
        regions = []
    wanted: list[tuple[type[Block], str]] = [(TenantBlock, tenant), (KeyBlock, tenant)]
    wanted += [(RegionBlock, name) for name in regions]
    for block, name in wanted:
        try:
            slug = block.get_block_type_slug()
            there = client.read_block_document_by_name(name, slug, include_secrets=False)
            client.delete_block_document(there.id)
        except ObjectNotFound:
            continue
        yield f"block {slug}/{name}"


def _limit(client: SyncPrefectClient, tenant: TenantId) -> Iterator[str]:
    try:
        client.delete_global_concurrency_limit_by_name(tenant_limit(tenant))
    except ObjectNotFound:
        return
    yield f"limit {tenant_limit(tenant)}"
