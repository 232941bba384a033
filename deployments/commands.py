"""
The commands that reach Prefect: up, down, status, flow, deploy.

Prefect is imported inside them, after its settings are in the environment: it reads them once, on
import, and takes a second for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from deployments import local
from deployments.environment import client_environment, load_schedules, prefect_home
from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.options import tenant_argument
from kryonix_backup.cli.text import table
from kryonix_backup.clock import SystemClock
from kryonix_backup.errors import ServerUnreachable, UsageError
from kryonix_backup.model import TenantId, tenant_id

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_FLOWS = ("backup", "follow", "restore", "rollback", "onboard", "keys")


@click.command(epilog="Example: kryonix up --port 4300")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the server and its UI.")
@answers
def up(port: int | None) -> Answer:
    """
    Start a local Prefect server and a worker for each pool.

    Does nothing to what runs already; what has ended is started again. The workers have the
    environment that this command is called in: the passphrases of tenants must be in it.
    """
    home = prefect_home()
    with local.alone(home):
        started = local.start(home, os.environ, SystemClock(), port)
        if not started.ready:
            _make_ready(started)
            replace(started, ready=True).save(home)
    return Answer(started.report(), [f"Prefect is up at {started.url}", *_workers(started)])


@click.command(epilog="Example: kryonix down")
@answers
def down() -> Answer:
    """Stop the local Prefect server and its workers, with the runs that they are at."""
    home = prefect_home()
    with local.alone(home):
        there = local.LocalServer.load(home)
        running = there is not None and there.any_alive()
        if there is not None:
            local.stop(there, SystemClock())
    return Answer({"stopped": running}, ["Prefect is down." if running else "Nothing was running."])


@click.command(epilog="Example: kryonix status --json")
@answers
def status() -> Answer:
    """Say whether the local Prefect server and its workers run; exits 1 where one does not."""
    there = local.LocalServer.load(prefect_home())
    if there is None:
        nothing: dict[str, Any] = {
            "url": None,
            "api": None,
            "running": False,
            "pid": None,
            "pools": [],
            "workers": [],
        }
        return Answer(nothing, ["Prefect was never started here; run 'kryonix up'."], 1)
    running = there.alive() and there.answers()
    plain = {**there.report(), "running": running}
    return Answer(plain, _standing(there, running=running), 0 if running else 1)


def _standing(there: local.LocalServer, *, running: bool) -> Iterator[str]:
    if not there.any_alive():
        yield "Prefect does not run; start it with 'kryonix up'"
        return
    yield f"Prefect {'runs' if running else 'does not run as it should'} at {there.url}"
    if not running:
        state = "runs, but does not answer" if there.server.alive() else "has ended"
        yield f"  server: {'answers' if there.answers() else state} (log {there.server.log})"
    yield from _workers(there)
    if not running:
        yield "  next: 'kryonix up' starts what has ended; 'kryonix down' first, where one is stuck"


@click.command(epilog="Example: kryonix flow backup acme kind=incremental --watch")
@click.argument("name", metavar="NAME", type=click.Choice(_FLOWS))
@tenant_argument
@click.argument("parameters", metavar="[PARAMETER=VALUE]...", nargs=-1)
@click.option("--watch", is_flag=True, help="Follow the run until it ends.")
@answers
def flow(name: str, tenant: str, parameters: tuple[str, ...], *, watch: bool) -> Answer:
    """
    Run a tenant's backup, restore, rollback, onboard or keys through Prefect.

    follow starts the run that keeps the logs of all tenants of its tier. Parameters are those of
    the flow, such as snapshot=latest. With --watch it exits 0 when the run completes, 3 when
    entries were left out or a log has a gap, and 1 otherwise; Ctrl-C leaves the run alone.
    """
    from kryonix_backup.sdk.tenants import show_tenant

    settings = show_tenant(tenant)
    url = _reach()
    from deployments.register import is_registered, register
    from deployments.requests import flow_request, parse_parameters, queue_run
    from deployments.watch import follow, look

    request = flow_request(name, settings, parse_parameters(parameters))
    with _client() as client:
        if not is_registered(client, settings):
            register(client, settings, active=None)
        run = queue_run(client, request)
        try:
            if watch:
                ended = follow(client, run, url, SystemClock(), _show_progress)
                return Answer(ended.to_plain(), _outcome(ended.to_plain()), ended.exit_code)
        except KeyboardInterrupt:
            click.echo("The run goes on.", err=True)
        queued = look(client, run, url)
    return Answer(queued.to_plain(), [f"{queued.run.name}: {queued.url}"])


@click.command(epilog="Example: kryonix deploy acme --active")
@click.argument("tenants", metavar="[ID]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--active/--inactive", default=None, help="Switch the schedules on or off.")
@click.option("--remove", is_flag=True, help="Take everything of these tenants off Prefect.")
@answers
def deploy(tenants: tuple[str, ...], *, dry_run: bool, active: bool | None, remove: bool) -> Answer:
    """
    Write tenants' blocks and deployments to Prefect; without an ID those of all tenants.

    Schedules stay as they are, and new ones are off, unless one of the switches is given. With
    --remove a tenant need not be registered here any more; its backups stay where they are.
    """
    if remove:
        if dry_run or active is not None or not tenants:
            raise UsageError("--remove takes tenants' ids, and none of the other switches")
        return _withdrawn([tenant_id(tenant) for tenant in tenants])
    from kryonix_backup.sdk.tenants import list_tenants, show_tenant

    chosen = [show_tenant(tenant) for tenant in tenants] or list_tenants()
    url = None if dry_run else _reach()
    from deployments.register import register, tenant_deployments
    from deployments.setup import set_up

    rows = [spec.to_plain() for settings in chosen for spec in tenant_deployments(settings)]
    if url is not None:
        with _client() as client:
            set_up(client, url)
            for settings in chosen:
                register(client, settings, active=active)
    cells = [
        [row["deployment"], f"{row['pool']}/{row['queue']}", row["schedule"] or "none"]
        for row in rows
    ]
    lines = [*table(("deployment", "pool/queue", "schedule"), cells)]
    if not chosen:
        lines = ["no tenants yet; see 'kryonix tenant add --help'"]
    elif active is None and not dry_run:
        lines.append(
            "next: 'kryonix deploy --active' switches the schedules on, where they are off"
        )
    return Answer({"dry_run": dry_run, "deployments": rows}, lines)


def _withdrawn(tenants: list[TenantId]) -> Answer:
    _reach()
    from deployments.withdrawal import withdraw

    with _client() as client:
        removed = {tenant: withdraw(client, tenant) for tenant in tenants}
    lines = [f"{tenant}: {each} removed" for tenant, found in removed.items() for each in found]
    return Answer({"removed": removed}, lines or ["there was nothing to remove"])


def _make_ready(started: local.LocalServer) -> None:
    _use(started.url)
    from deployments.pools import run_flows_directly
    from deployments.setup import set_up, wait_for_workers

    clock = SystemClock()
    local.wait_until_healthy(started, clock)
    with _client() as client:
        set_up(client, started.url)
        run_flows_directly(client, [worker.name for worker in started.workers])
        wait_for_workers(client, started, clock)


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
    load_schedules()


@contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    """A client; raises ServerUnreachable where the server leaves, or has too much to do."""
    import httpx
    from prefect.client.orchestration import get_client

    hint = "It may be starting, or busy: look at 'kryonix status', and run the same command again."
    with get_client(sync_client=True) as client:
        try:
            yield client
        except httpx.HTTPStatusError as error:
            if not error.response.is_server_error:
                raise
            said = f"{error.response.status_code} to {error.request.url.path}"
            raise ServerUnreachable(f"the Prefect server answers {said}", hint) from error
        except httpx.TransportError as error:
            raise ServerUnreachable(f"the Prefect server broke off: {error}", hint) from error


def _show_progress(line: str) -> None:
    if sys.stderr.isatty():
        click.echo(line, err=True)


def _workers(there: local.LocalServer) -> list[str]:
    return [
        f"  worker of {worker.name}: {'runs' if worker.alive() else 'has ended'}"
        f" (pid {worker.pid}, log {worker.log})"
        for worker in there.workers
    ]


def _outcome(result: dict[str, Any]) -> Iterator[str]:
    """The end of a run for people: its state, its table, and where to see it."""
    yield f"{result['name']}: {result['state']} in {result['duration_s']:.1f} s"
    if result["message"]:
        yield f"  {result['message']}"
    if rows := result["table"]:
        head = list(rows[0])
        yield from table(head, [[str(row.get(name, "")) for name in head] for row in rows])
    yield f"See {result['url']}"
