"""What holds for every test: a home of its own, no secrets of the machine, no network beyond it."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import settings

# Two cores shared by servers and tests: how long one example takes says nothing.
settings.register_profile("kryonix", deadline=None, print_blob=True)
settings.load_profile("kryonix")

_OURS = ("KRYONIX_", "AWS_", "PREFECT_")
_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")  # the last is what a server binds to


def _stay_on_this_machine(event: str, arguments: Sequence[object]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host and not str(host).startswith(_LOOPBACK):
        raise AssertionError(f"a test reached out to {host}")


sys.addaudithook(_stay_on_this_machine)

# A shell starts a job in the background deaf to Ctrl-C, and everything that it starts is too.
signal.signal(signal.SIGINT, signal.default_int_handler)


for _name in [name for name in os.environ if name.startswith(_OURS)]:
    if _name != "KRYONIX_SCREENSHOTS":  # where whoever runs the tests wants the pictures
        del os.environ[_name]
# Prefect reads these once, on import: before any test, and away from the developer's own server.
_PREFECT_HOME = tempfile.mkdtemp(prefix="kryonix-prefect-")
atexit.register(shutil.rmtree, _PREFECT_HOME, ignore_errors=True)
os.environ.update(
    PREFECT_HOME=_PREFECT_HOME,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="false",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DO_NOT_TRACK="1",
)


@pytest.fixture(autouse=True)
def kryonix_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh ``$KRYONIX_HOME`` for every test, so that none sees the developer's tenants."""
    home = tmp_path_factory.mktemp("kryonix-home")
    monkeypatch.setenv("KRYONIX_HOME", str(home))
    return home
