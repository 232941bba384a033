"""What ``kryonix flow`` asks for: which deployment, with which parameters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from blocks.names import backup_deployment
from deployments.register import keys_deployment
from kryonix_backup.addresses import holds_secret
from kryonix_backup.errors import ConfigError, UsageError
from kryonix_backup.model import BackupKind
from kryonix_backup.sdk.logs import needed_log_sources
from kryonix_backup.settings import TenantSettings

_SET = {"tenant", "pool"}  # by the command, never by a parameter
_TEXT = {"snapshot", "restore", "resume", "kind", "at"}


@dataclass(frozen=True, slots=True)
class FlowRequest:
    """A deployment, and the parameters of one run of it."""

    deployment: str
    parameters: dict[str, Any]
    tags: tuple[str, ...]


def flow_request(name: str, settings: TenantSettings, parameters: Mapping[str, Any]) -> FlowRequest:
    """
    The run that the operator asks for.

    Raises UsageError, ConfigError without a log, and for an address that holds a password: Prefect
    would keep it with the run.
    """
    asked = {**parameters, "tenant": settings.id}
    if _holds_secret(parameters):
        raise UsageError(
            "a parameter holds a password, which Prefect would keep with the run",
            "Take it out of the address; a worker finds it in a passfile that PGPASSFILE names.",
        )
    if name == "follow":
        needed_log_sources(settings)
        asked = {**parameters, "pool": settings.tier}
    deployment = {
        "follow": f"follow-logs/{settings.tier}",
        "restore": f"restore-tenant/restore-{settings.tier}",
        "rollback": "rollback-restore/rollback",
        "onboard": "onboard-tenant/onboard",
        "keys": keys_deployment(settings).full_name(),
        "backup": "",
    }.get(name)
    if deployment is None:
        raise UsageError(
            f"there is no flow {name!r}",
            "Use one of backup, follow, restore, rollback, onboard or keys.",
        )
    if name == "backup":
        kinds = [kind.value for kind in BackupKind]
        asked.setdefault("kind", BackupKind.FULL.value)
        if asked["kind"] not in kinds:
            raise UsageError(f"a backup's kind is {', '.join(kinds)}, not {asked['kind']!r}")
        if asked["kind"] == BackupKind.LOG.value:
            needed_log_sources(settings)
        deployment = backup_deployment(settings.id, BackupKind(asked["kind"]))
    tags = (f"tenant:{settings.id}", f"tier:{settings.tier}", name)
    return FlowRequest(deployment, asked, tags)


def _holds_secret(value: Any) -> bool:
    """Whether a text in it seems to be an address with a password."""
    if isinstance(value, Mapping):
        return any(_holds_secret(each) for each in value.values())
    if isinstance(value, list):
        return any(_holds_secret(each) for each in value)
    return isinstance(value, str) and holds_secret(value)


def parse_parameters(pairs: Iterable[str]) -> dict[str, Any]:
    """
    ``NAME=VALUE`` arguments as values.

    JSON where the value is JSON (``strict=true``, ``sources=["db"]``), otherwise text; ids and
    times are always text. Raises UsageError.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"{pair!r} is not of the form NAME=VALUE")
        if name in found:
            raise UsageError(f"the parameter {name} is given twice")
        found[name] = text if name in _TEXT else _value(text)
    return found


def queue_run(client: SyncPrefectClient, request: FlowRequest) -> UUID:
    """
    Queue the run; its id.

    Raises ConfigError where the server does not know the deployment, and UsageError where it
    refuses a parameter.
    """
    try:
        deployment = client.read_deployment_by_name(request.deployment)
    except ObjectNotFound as error:
        raise ConfigError(
            f"the Prefect server has no deployment {request.deployment}",
            "Run 'kryonix up', or 'prefect deploy --all' for a server of your own.",
        ) from error
    known = sorted((deployment.parameter_openapi_schema or {}).get("properties", {}))
    takes = f"It takes: {', '.join(name for name in known if name not in _SET) or 'none'}."
    if unknown := [name for name in request.parameters if name not in known]:
        raise UsageError(f"{request.deployment} has no parameter {unknown[0]!r}", takes)
    try:
        run = client.create_flow_run_from_deployment(
            deployment.id, parameters=request.parameters, tags=request.tags
        )
    except PrefectHTTPStatusError as error:
        if error.response.status_code not in (409, 422):
            raise
        detail = error.response.json().get("detail", error.response.text)
        raise UsageError(f"the server refuses these parameters: {detail}", takes) from error
    return run.id


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
