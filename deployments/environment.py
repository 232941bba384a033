"""
What the processes of the local server find in their environment.

Nothing reaches out to the internet: no analytics, no telemetry, no promotions. Secrets go where
they are needed: ``KRYONIX_*``, ``AWS_*`` and ``PG*`` to the workers, the key of the server's own
encryption to the server alone.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kryonix_backup.settings import home_directory

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_COLORS": "false",
    # Without a server a client must fail, not start a hidden one of its own.
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
}
_WORKER = {
    # A worker looks for runs as often; the default of 10 s is long when a person waits.
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_RUNNER_POLL_FREQUENCY": "2",
    # What the engine warns of stands among the run's own logs.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "kryonix_backup",
}
# Variables that open tenants' repositories and databases.
_TENANTS = ("KRYONIX_", "AWS_", "PG")
_SERVER_ALONE = ("PREFECT_SERVER_ENCRYPTION_KEY", "PREFECT_SERVER_DATABASE_CONNECTION_URL")


def prefect_home(env: Mapping[str, str] | None = None) -> Path:
    """Where the local server keeps its database, logs and state."""
    return home_directory(env) / "prefect"


def client_environment(home: Path, url: str) -> dict[str, str]:
    """What a client of the server at ``url`` (without /api) needs, and no secret."""
    return {**_QUIET, "PREFECT_HOME": str(home), "PREFECT_API_URL": f"{url}/api"}


def server_environment(env: Mapping[str, str], home: Path, url: str) -> dict[str, str]:
    """The server's environment: without anything that opens a tenant's repository."""
    own = {name: value for name, value in env.items() if not name.startswith(_TENANTS)}
    key = env.get("PREFECT_SERVER_ENCRYPTION_KEY") or encryption_key(home)
    return {
        **own,
        **client_environment(home, url),
        "PREFECT_SERVER_ENCRYPTION_KEY": key,
        "PREFECT_UI_API_URL": f"{url}/api",
    }


def worker_environment(env: Mapping[str, str], home: Path, url: str) -> dict[str, str]:
    """A worker's environment: the caller's, without the server's secrets."""
    own = {name: value for name, value in env.items() if name not in _SERVER_ALONE}
    place = {"KRYONIX_HOME": str(home_directory(env).resolve())}
    return {**_WORKER, **own, **client_environment(home, url), **place}


@contextmanager
def secrets_hidden() -> Iterator[None]:
    """What is started meanwhile finds nothing in its environment that opens a tenant's data."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith(_TENANTS)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def load_schedules() -> None:
    """
    Let Prefect import now what it needs for its first schedule, with our secrets hidden.

    On import that asks the program ``file`` about this Python, and gives it all our environment.
    """
    with secrets_hidden():
        from prefect.client.schemas.schedules import CronSchedule

        CronSchedule(cron="0 0 * * *", timezone="UTC")


def encryption_key(home: Path) -> str:
    """
    The key under which the local server encrypts blocks; made once, readable by its owner alone.

    Without it Prefect would keep a key of its own in the same database as the blocks.
    """
    path = home / "encryption.key"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        beside = path.with_suffix(f".{os.getpid()}")
        beside.touch(mode=0o600)
        beside.write_text(made)
        beside.replace(path)
    return path.read_text().strip()
