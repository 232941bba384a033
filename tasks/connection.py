"""A tenant's name becomes the engine's client, on the worker, from the tenant's blocks."""

from __future__ import annotations

import os
import threading
from functools import lru_cache

from prefect import runtime

from blocks.saved import saved
from blocks.tenant import TenantBlock
from kryonix_backup.dumps import forbid_dumps
from kryonix_backup.errors import TenantUnknown
from kryonix_backup.sdk.client import Client
from kryonix_backup.sdk.keys import Keys
from kryonix_backup.settings import RootKey, TenantSettings


def load_tenant(tenant: str) -> tuple[TenantSettings, RootKey]:
    """
    The tenant's settings and root key, out of the block saved under its id.

    From then on no core dump of this process is written: it holds keys.

    Raises TenantUnknown, SecretMissing and ConfigError.
    """
    forbid_dumps()
    try:
        block = saved(TenantBlock, tenant)
    except ValueError as error:
        raise TenantUnknown(
            f"the Prefect server has no kryonix-tenant block named {tenant}",
            "Save it with 'kryonix deploy', or in the UI under Blocks.",
        ) from error
    settings = block.to_settings()
    if settings.keys.store:
        return settings, RootKey.from_environment(os.environ, settings.id, settings.keys.store)
    return settings, block.key.to_settings(os.environ, settings.id)


def connect_keys(tenant: str) -> Keys:
    """The engine's view of that tenant's keys; raises what `load_tenant` raises."""
    return Keys(*load_tenant(tenant), env=run_environment())


def run_environment() -> dict[str, str]:
    """The worker's environment, with the run for the audit chain: who acts, and in which run."""
    run = runtime.flow_run
    if not run.id:
        return dict(os.environ)
    return {
        "KRYONIX_ACTOR": f"flow {run.flow_name}",
        **os.environ,
        "KRYONIX_RUN": f"{run.name} {run.id}",
    }


def connect(tenant: str) -> Client:
    """
    The engine's client of that tenant; raises what `load_tenant` raises.

    A flow run opens the repository once in each of its threads: deriving a key from a passphrase
    takes a third of a second, on purpose, and a run has a dozen tasks.
    """
    run = runtime.flow_run.id
    return _client(tenant, run, threading.get_ident()) if run else _new_client(tenant)


@lru_cache(maxsize=16)
def _client(tenant: str, _run: str, _thread: int) -> Client:
    return _new_client(tenant)


def _new_client(tenant: str) -> Client:
    return Client(*load_tenant(tenant), env=run_environment())
