"""
Backups of which each has another one of its requests broken: the first, the second, and so on.

A fault that comes once must not be noticed. An outage, which is the same fault at every request
from there on, may end the backup; then it says so, nothing is lost, and the next one completes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from kryonix_backup.errors import KryonixError, StoreThrottled, StoreUnavailable
from kryonix_backup.model import SourceName, TenantId, Tier
from kryonix_backup.sdk.client import Client, Level
from kryonix_backup.settings import (
    PRIMARY,
    RegionSettings,
    RootKey,
    Secret,
    SourceSettings,
    TenantSettings,
)
from tests.integration import trees
from tests.integration.command import Command
from tests.integration.stores import Place, bytes_stored_twice, repository_of
from tests.services.s3_proxy import Fault, S3Proxy

_TRANSIENT = {StoreUnavailable.exit_code, StoreThrottled.exit_code}
_FOR_EVER = 200


@dataclass
class Found:
    """What came of a sweep: how many requests were broken, and how the backups ended."""

    requests: int = 0
    codes: list[int] = field(default_factory=list)


class Sweep:
    """Small backups through a proxy, each second one of a new tenant acme at the place."""

    def __init__(self, place: Place, proxy: S3Proxy, work: Path, *, by_command: bool) -> None:
        self._place = place
        self._proxy = proxy
        self._by_command = by_command
        self._tree = work / "tree"
        self._rng = Random(9)
        self._command = Command.with_key_file(work / "home", **place.environment)
        trees.grow(self._tree, self._rng, small=8, large_mib=1)

    def run(self, fault: Fault, *, outage: bool = False) -> Found:
        """Break each request of a tenant's second backup, once or from there on."""
        found = Found()
        while True:
            self._start_over()
            after = [fault] * (_FOR_EVER if outage else 1)
            self._proxy.script(*[None] * found.requests, *after)
            code = self._back_up()
            fired = len(self._proxy.faults) < len(after)
            with self._proxy.lock:
                self._proxy.faults.clear()
            if not fired:
                assert code == 0
                return found
            self._hold_to_account(code)
            found.codes.append(code)
            found.requests += 1

    def _start_over(self) -> None:
        """A new repository with one backup, and a change since."""
        self._url = self._place.new()
        words = ["tenant", "add", "acme", "--region", f"primary={self._url}"]
        if self._by_command:
            self._command.run("tenant", "remove", "acme", expect=None)
            self._command.run(*words, "--source", f"docs=files://{self._tree}")
        else:
            Client.onboard(self._settings(), self._root(), env=self._command.environment())
        assert self._back_up() == 0
        trees.write(self._tree / "changing", 50_000, self._rng)

    def _back_up(self) -> int:
        """The exit code of one backup; only what passes may end it."""
        if self._by_command:
            outcome = self._command.run("backup", "acme", expect=None)
            assert outcome.code in {0, *_TRANSIENT}, outcome
            return outcome.code
        try:
            self._client().backup()
        except (StoreUnavailable, StoreThrottled) as error:
            return self._explained(error)
        return 0

    def _explained(self, error: KryonixError) -> int:
        assert self._proxy.endpoint in error.message
        assert error.tenant == "acme"
        return error.exit_code

    def _hold_to_account(self, code: int) -> None:
        report = self._client().verify(Level.DATA)
        assert report.status == "ok", report
        if code:
            assert self._back_up() == 0, "the next backup completes"
        assert bytes_stored_twice(repository_of(self._url, self._command)) == 0

    def _client(self) -> Client:
        return Client(self._settings(), self._root(), env=self._command.environment())

    def _settings(self) -> TenantSettings:
        region = RegionSettings(PRIMARY, self._url)
        source = SourceSettings(SourceName("docs"), f"files://{self._tree}")
        return TenantSettings(TenantId("acme"), Tier("standard"), (region,), (source,))

    def _root(self) -> RootKey:
        return RootKey(key_file=Secret(self._command.plain_key))
