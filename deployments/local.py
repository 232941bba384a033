"""
A Prefect server on this machine and a worker for each pool: started, looked at, stopped.

What runs is remembered in ``$KRYONIX_HOME/prefect/state.json`` by pid and start time, so that
nothing is ever stopped that this command has not started.
"""

from __future__ import annotations

import fcntl
import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from deployments.environment import server_environment, worker_environment
from deployments.process import Child
from kryonix_backup.clock import Clock
from kryonix_backup.errors import ConfigError, ServerUnreachable, UsageError

USUAL_PORT = 4200
PID_PATH = "/kryonix/pid"
# A fresh database takes about ten seconds to make on two free cores.
PATIENCE_S = 120.0
_POLL_S = 0.1
# Modules come from where they are installed, never from the directory that 'up' was called in.
_PYTHON = (sys.executable, "-P")


@dataclass(frozen=True, slots=True)
class LocalServer:
    """The processes of one ``kryonix up``; ``ready`` once pools and deployments were written."""

    url: str
    server: Child
    workers: tuple[Child, ...]
    ready: bool = False

    def alive(self) -> bool:
        """Whether the server and every worker run."""
        return all(child.alive() for child in (self.server, *self.workers))

    def answers(self) -> bool:
        """Whether this very server answers, and not another one at its port."""
        return _get(self.url + PID_PATH) == str(self.server.pid).encode() and answers(self.url)

    def any_alive(self) -> bool:
        """Whether anything of it runs."""
        return any(child.alive() for child in (self.server, *self.workers))

    def to_plain(self) -> dict[str, Any]:
        """The form of the state file."""
        workers = [worker.to_plain() for worker in self.workers]
        return {
            "url": self.url,
            "server": self.server.to_plain(),
            "workers": workers,
            "ready": self.ready,
        }

    def report(self) -> dict[str, Any]:
        """What ``up`` and ``status`` say with --json."""
        return {
            "url": self.url,
            "api": f"{self.url}/api",
            "running": self.server.alive(),
            "pid": self.server.pid,
            "pools": [worker.name for worker in self.workers],
            "workers": [
                {"pool": worker.name, "pid": worker.pid, "running": worker.alive()}
                for worker in self.workers
            ],
        }

    @classmethod
    def load(cls, home: Path) -> Self | None:
        """What was started here last, whether it still runs or not; None where nothing was."""
        try:
            plain = json.loads((home / "state.json").read_text())
            workers = tuple(Child.from_plain(row) for row in plain["workers"])
            return cls(plain["url"], Child.from_plain(plain["server"]), workers, plain["ready"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(home, error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{home}/state.json does not say what 'kryonix up' started",
                "End those processes by hand ('ps -ef | grep deployments'), move the file away, and"
                " run 'kryonix up'.",
            ) from error

    def save(self, home: Path) -> None:
        """Remember it, whole or not at all."""
        beside = home / "state.json.new"
        beside.write_text(json.dumps(self.to_plain(), indent=1))
        beside.replace(home / "state.json")


def start(home: Path, env: Mapping[str, str], clock: Clock, port: int | None = None) -> LocalServer:
    """
    Start what does not run yet; workers load while the server comes up.

    Returns as soon as the processes exist: see `wait_until_healthy`. Raises ServerUnreachable
    where the wished port is taken, and UsageError where the server runs at another one.
    """
    there = LocalServer.load(home)
    if there is not None and there.server.alive():
        if port and port != urlsplit(there.url).port:
            raise UsageError(
                f"Prefect runs at {there.url} already", "Run 'kryonix down' first to move it."
            )
        if there.ready and there.alive():
            return there
        workers = tuple(
            worker if worker.alive() else _start_worker(worker.name, home, env, there.url)
            for worker in there.workers
        )
        made = LocalServer(there.url, there.server, workers)
    else:
        if there is not None:
            stop(there, clock)
        made = _start_all(home, env, _free_port(port))
    made.save(home)
    return made


def stop(local: LocalServer, clock: Clock) -> None:
    """Stop the workers, then the server; a process that is not ours any more is left alone."""
    for worker in local.workers:
        worker.ask_to_end()
    for worker in local.workers:
        worker.end(clock, patience_s=15.0)
    local.server.ask_to_end()
    local.server.end(clock, patience_s=10.0)


def wait_until_healthy(local: LocalServer, clock: Clock) -> None:
    """
    Return once the server itself answers; raises ServerUnreachable with the end of its log.

    Another server may have taken the port in between: then ours ends.
    """
    end = clock.monotonic() + PATIENCE_S
    while not local.answers():
        if not local.server.alive():
            raise ServerUnreachable(
                f"the Prefect server ended while it started:\n{local.server.last_lines()}",
                f"See {local.server.log}.",
            )
        if clock.monotonic() > end:
            raise ServerUnreachable(
                f"the Prefect server at {local.url} did not answer within {PATIENCE_S:.0f} s",
                f"See {local.server.log}.",
            )
        clock.sleep(_POLL_S)


def answers(url: str) -> bool:
    """Whether a Prefect server answers at that address (without /api)."""
    return _get(f"{url}/api/health") is not None


def _get(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  the operator's own address
            return bytes(answer.read())
    except (urllib.error.URLError, OSError):
        return None


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """One ``up`` or ``down`` at a time in this home; the lock ends with its process."""
    with ExitStack() as stack:
        try:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = stack.enter_context((home / "lock").open("w"))
        except OSError as error:
            raise _unusable(home, error) from error
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unusable(home: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{home} cannot be used: {error.strerror}",
        "Set KRYONIX_HOME to a directory that this user may write to.",
    )


def _start_all(home: Path, env: Mapping[str, str], port: int) -> LocalServer:
    from kryonix_backup.sdk.limits import load_tiers  # 'kryonix --help' does without

    pools = load_tiers(env).names  # first: where it fails nothing runs that nobody would stop
    url = f"http://127.0.0.1:{port}"
    command = [*_PYTHON, "-m", "deployments.server", str(port)]
    server = Child.start("server", command, server_environment(env, home, url), home)
    return LocalServer(url, server, tuple(_start_worker(pool, home, env, url) for pool in pools))


def _start_worker(pool: str, home: Path, env: Mapping[str, str], url: str) -> Child:
    command = [*_PYTHON, "-m", "deployments.worker", pool]
    return Child.start(pool, command, worker_environment(env, home, url), home)


def _free_port(wished: int | None) -> int:
    for port in (wished,) if wished else (USUAL_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServerUnreachable(
        f"port {wished} is taken by another process", "Choose another with --port, or leave it out."
    )
