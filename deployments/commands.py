"""
The commands that reach Prefect: up, down, status, flow, deploy.

Prefect is imported inside them, after its settings are in the environment: it reads them once, on
import, and takes a second for it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from deployments import local
from deployments.environment import client_environment, prefect_home
from kryonix_backup.clock import SystemClock
from kryonix_backup.errors import ServerUnreachable
from kryonix_backup.settings import TenantSettings, home_directory
from kryonix_backup.tenancy.registry import TenantRegistry

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_FLOWS = ("backup", "restore", "rollback", "onboard")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the server and its UI.")
@_JSON
def up(*, port: int | None, as_json: bool) -> None:
    """Start a local Prefect server and a worker for each pool."""
    home, clock = prefect_home(), SystemClock()
    with local.alone(home):
        started = local.start(home, os.environ, clock, port)
        _use(started.url)
        from deployments.setup import set_up, wait_for_workers

        local.wait_until_healthy(started, clock)
        with _client() as client:
            set_up(client, started.url)
            wait_for_workers(client, started, clock)
    _say(started.report(), f"Prefect is up at {started.url}", as_json=as_json)


@click.command()
@_JSON
def down(*, as_json: bool) -> None:
    """Stop the local Prefect server and its workers."""
    home = prefect_home()
    with local.alone(home):
        there = local.LocalServer.load(home)
        running = there is not None and there.any_alive()
        if there is not None:
            local.stop(there, SystemClock())
    _say(
        {"stopped": running},
        "Prefect is down" if running else "nothing was running",
        as_json=as_json,
    )


@click.command()
@_JSON
@click.pass_context
def status(context: click.Context, *, as_json: bool) -> None:
    """Say whether the local Prefect server and its workers run; exits 1 where one does not."""
    there = local.LocalServer.load(prefect_home())
    running = there is not None and there.alive() and local.answers(there.url)
    report = {**(there.report() if there else {"url": None, "workers": []}), "running": running}
    lines = [f"Prefect {'runs at' if running else 'does not run, it was at'} {report['url']}"]
    lines += [
        f"  worker {each['pool']}: {'runs' if each['running'] else 'has ended'}"
        for each in report["workers"]
    ]
    _say(report, "\n".join(lines) if there else "Prefect was never started here", as_json=as_json)
    context.exit(0 if running else 1)


@click.command()
@click.argument("name", metavar="NAME", shell_complete=lambda *_: list(_FLOWS))
@click.argument("tenant", metavar="ID")
@click.argument("parameters", metavar="[PARAMETER=VALUE]...", nargs=-1)
@click.option("--watch", is_flag=True, help="Follow the run until it ends.")
@_JSON
@click.pass_context
def flow(
    context: click.Context,
    name: str,
    tenant: str,
    parameters: tuple[str, ...],
    *,
    watch: bool,
    as_json: bool,
) -> None:
    """
    Run a tenant's deployment: backup, restore, rollback or onboard.

    Parameters are those of the flow, such as kind=incremental or snapshot=latest. With --watch it
    exits 0 when the run completes, 3 when entries were left out, and 1 otherwise; Ctrl-C leaves
    the run alone.
    """
    settings = _registered(tenant)
    url = _reach()
    from deployments.register import register
    from deployments.requests import flow_request, parse_parameters, queue_run
    from deployments.watch import follow, look

    request = flow_request(name, settings, parse_parameters(parameters))
    with _client() as client:
        register(client, settings, active=None)
        run = queue_run(client, request)
        if not watch:
            result = look(client, run, url)
            _say(result.to_plain(), f"queued {result.url}", as_json=as_json)
            return
        try:
            result = follow(client, run, url, SystemClock(), _progress)
        except KeyboardInterrupt:
            result = look(client, run, url)
            _say(result.to_plain(), f"the run goes on: {result.url}", as_json=as_json)
            return
    _say(result.to_plain(), _outcome(result.to_plain()), as_json=as_json)
    context.exit(result.exit_code)


@click.command()
@click.argument("tenants", metavar="[ID]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--active/--inactive", default=None, help="Switch the schedules on or off.")
@_JSON
def deploy(tenants: tuple[str, ...], *, dry_run: bool, active: bool | None, as_json: bool) -> None:
    """Write tenants' blocks and deployments to the Prefect server; all tenants without an ID."""
    chosen = [_registered(tenant) for tenant in tenants] or _all_registered()
    url = None if dry_run else _reach()
    from deployments.register import register, tenant_deployments
    from deployments.setup import set_up

    rows = [spec.to_plain() for settings in chosen for spec in tenant_deployments(settings)]
    if url is not None:
        with _client() as client:
            set_up(client, url)
            for settings in chosen:
                register(client, settings, active=active)
    lines = [
        f"{row['deployment']}  {row['pool']}/{row['queue']}  {row['schedule']}" for row in rows
    ]
    _say({"dry_run": dry_run, "deployments": rows}, "\n".join(lines), as_json=as_json)


def _registered(tenant: str) -> TenantSettings:
    return _registry().get(tenant)


def _all_registered() -> list[TenantSettings]:
    registry = _registry()
    return [registry.get(tenant) for tenant in registry.names()]


def _registry() -> TenantRegistry:
    return TenantRegistry(home_directory() / "tenants")


def _reach() -> str:
    """Set Prefect's environment for the server to talk to; its URL. Raises ServerUnreachable."""
    chosen = os.environ.get("PREFECT_API_URL", "").removesuffix("/").removesuffix("/api")
    there = local.LocalServer.load(prefect_home())
    url = chosen or (there.url if there else f"http://127.0.0.1:{local.USUAL_PORT}")
    if not local.answers(url):
        raise ServerUnreachable(f"no Prefect server answers at {url}")
    _use(url)
    from deployments.tenants import show_logo_of

    show_logo_of(url, os.environ)
    return url


def _use(url: str) -> None:
    """Point this process at that server; before Prefect is imported for the first time."""
    os.environ.update(client_environment(prefect_home(), url))


def _client() -> SyncPrefectClient:
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        click.echo(line, err=True)


def _outcome(result: dict[str, Any]) -> str:
    """The end of a run for people: its state, its table, and where to see it."""
    lines = [f"{result['name']}: {result['state']}", f"  {result['message']}"]
    for row in result["table"]:
        lines.append("  " + "  ".join(f"{name} {value}" for name, value in row.items()))
    return "\n".join([*lines, f"  {result['url']}"])


def _say(report: dict[str, Any], text: str, *, as_json: bool) -> None:
    click.echo(json.dumps(report) if as_json else text)
