"""
The whole story of one tenant, in a temporary home: seeded files, a database that is worked with,
three regions, a Prefect server.

Nothing is left running, and nothing on disk, without ``--keep``.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from deployments.demo_database import DemoDatabase
from deployments.demo_regions import Regions, directories, s3_servers
from deployments.demo_story import TENANT, Operator, Story
from deployments.demo_table import WIDTH, table
from kryonix_backup.clock import SystemClock
from kryonix_backup.errors import TargetFull
from kryonix_backup.model import MIB

NOTE = (
    "Backups are written to the region 'primary'; 'secondary' and 'archive' hold the tenant's"
    " keys, ready for copies that this version does not make yet."
)
# The files, their repository, both restored states, and room to restore beside.
_TIMES_THE_SIZE = 5


@dataclass(frozen=True, slots=True)
class Stage:
    """What the story plays on."""

    home: Path
    regions: Regions
    database: DemoDatabase
    operator: Operator
    url: str


@click.command(epilog="Example: kryonix demo --size 64 --keep")
@click.option("--keep", is_flag=True, help="Leave the server running and everything on disk.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, the report.")
@click.option("--size", "mib", default=240, show_default=True, type=click.IntRange(8, 65_536),
              metavar="MIB", help="How many MiB of files the tenant has.")  # fmt: skip
@click.option("--s3", is_flag=True, help="Three S3 servers as regions, instead of directories.")
@click.option("--verbose", "-v", is_flag=True, expose_value=False, help="Say more on a failure.")
def demo(*, keep: bool, as_json: bool, mib: int, s3: bool) -> None:
    """Back up a tenant, destroy it and restore it, through Prefect."""
    console = Console(stderr=as_json)
    console.width = max(console.width, WIDTH)  # a narrow terminal wraps; a figure cut off is none
    clock = SystemClock()
    began = clock.monotonic()
    with _stage(mib, console, s3=s3, keep=keep) as stage:
        story = Story(stage.home, stage.database, stage.operator, clock)
        story.tell(mib, stage.regions.urls)
        report = {
            "tenant": TENANT,
            "status": "restored and equal",
            "server": stage.url,
            "regions": dict(stage.regions.urls),
            "steps": [step.to_plain() for step in story.steps],
            "duration_s": round(clock.monotonic() - began, 1),
            "kept": str(stage.home) if keep else None,
            "note": NOTE,
        }
    console.print(table(story.steps))
    console.print(
        f"All of it took {report['duration_s']} s. {NOTE}", highlight=False, soft_wrap=True
    )
    if not keep:
        console.print("Nothing is left running; with --keep the Prefect UI stays.")
    if as_json:
        click.echo(json.dumps(report))


@contextmanager
def _stage(mib: int, console: Console, *, s3: bool, keep: bool) -> Iterator[Stage]:
    """Set everything up; end and remove it afterwards, also after a failure."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as leave:
        home = Path(tempfile.mkdtemp(prefix="kryonix-demo-"))
        leave.callback(shutil.rmtree, home, ignore_errors=True)
        _check_room(home, mib)
        regions = (s3_servers if s3 else directories)(home / "regions", TENANT)
        leave.callback(regions.stop)
        database = DemoDatabase.start()
        leave.callback(database.server.remove)
        operator = Operator(home, console, _environment(home, regions))
        leave.callback(operator.kryonix, "down")
        url = str(operator.kryonix("up")["url"])
        console.print(f"The Prefect UI is at {url}", highlight=False)
        stage = Stage(home, regions, database, operator, url)
        try:
            yield stage
        finally:
            if keep:
                leave.pop_all()
                console.print(_how_to_end(stage), highlight=False, soft_wrap=True)


def _check_room(home: Path, mib: int) -> None:
    free, needed = shutil.disk_usage(home).free, mib * MIB * _TIMES_THE_SIZE
    if free < needed:
        raise TargetFull(
            f"{home.parent} has {free // MIB} MiB free; the demo needs about {needed // MIB}",
            "Set TMPDIR to a directory with more room, or make the tenant smaller with --size.",
        )


def _environment(home: Path, regions: Regions) -> dict[str, str]:
    """The caller's environment, with a home and a passphrase of the demo's own."""
    passphrase = home / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(secrets.token_urlsafe(24) + "\n")
    scratch = home / "scratch"
    scratch.mkdir()
    ours = ("KRYONIX_", "PREFECT_", "AWS_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **inherited,
        **regions.environment,
        "TMPDIR": str(scratch),  # Prefect's workers leave folders there
        "KRYONIX_HOME": str(home / "kryonix"),
        "KRYONIX_PASSPHRASE_FILE": str(passphrase),
    }


def _how_to_end(stage: Stage) -> str:
    server = stage.database.server
    commands = [f"KRYONIX_HOME={stage.home}/kryonix .venv/bin/kryonix down"]
    commands += [f"kill {each.process.pid}" for each in stage.regions.servers]
    commands += [f"kill -INT {server.process.pid}"] if server.process is not None else []
    return "\n".join(
        [f"The Prefect UI stays at {stage.url}, the database at {stage.database.url}."]
        + ["To end everything:"]
        + [f"  {command}" for command in [*commands, f"rm -r {stage.home} {server.folder}"]]
    )
