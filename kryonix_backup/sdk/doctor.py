"""What would stop a backup on this machine, looked for before it does."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

from kryonix_backup.clock import SystemClock
from kryonix_backup.crypto.stores.registry import probe_key_store
from kryonix_backup.errors import ConfigError, KryonixError, SourceError
from kryonix_backup.sdk.limits import Held, load_tiers
from kryonix_backup.sdk.wiring import open_catalog, open_repository, source_of
from kryonix_backup.settings import (
    RegionSettings,
    RootKey,
    SourceSettings,
    TenantSettings,
    home_directory,
)
from kryonix_backup.tenancy.registry import Registry

PASSED = "pass"
FAILED = "fail"
UNKNOWN = "unknown"

# Compiled, or a backup takes many times as long: each with a module that is only there then.
_COMPILED = {
    "pyfastcdc": "pyfastcdc.cy",
    "blake3": "blake3.blake3",
    "zstandard": "zstandard.backend_c",
    "msgpack": "msgpack._cmsgpack",
    "cryptography": "cryptography.hazmat.bindings._rust",
}


@dataclass(frozen=True, slots=True)
class Check:
    """
    One thing that was looked at.

    ``status`` is pass, fail or unknown, where unknown does not count as passed. ``exit_code`` is
    that of the error behind a failure, 0 where there is none.
    """

    what: str
    status: str
    evidence: str
    next: str = ""
    exit_code: int = 0

    def to_plain(self) -> dict[str, Any]:
        """The check as the command prints it with --json."""
        return asdict(self)


def examine(env: Mapping[str, str] | None = None) -> Iterator[Check]:
    """Look at this machine and at every registered tenant; changes nothing that lasts."""
    env = os.environ if env is None else env
    yield _python()
    for name, module in _COMPILED.items():
        yield _compiled(name, module)
    yield _checked("home", lambda: _home(env))
    yield _checked("catalog", lambda: _catalog(env))
    registry = Registry.at(env)
    try:
        tenants = registry.ids()
    except KryonixError as error:
        yield _failed("tenants", error)
        return
    for tenant in tenants:
        try:
            settings = registry.load(tenant)
        except KryonixError as error:
            yield _failed(f"tenant {tenant}", error)
            continue
        yield from _tenant(settings, env)


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Check("python", PASSED, version)


def _compiled(name: str, module: str) -> Check:
    try:
        import_module(module)
    except ImportError as error:
        again = f"Install it again from a wheel: pip install --force-reinstall {name}."
        return Check(f"module {name}", FAILED, f"not compiled: {error}", again, 1)
    return Check(f"module {name}", PASSED, "compiled")


def _home(env: Mapping[str, str]) -> str:
    home = home_directory(env)
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=home) as probe:
            probe.write(b"kryonix")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise ConfigError(
            f"{home} cannot be written to: {error.strerror}",
            "Set KRYONIX_HOME to a directory that this user may write to.",
        ) from error
    return f"{home} can be written to"


def _catalog(env: Mapping[str, str]) -> str:
    with open_catalog(env):
        return "opens, and its tables are up to date"


def _tenant(settings: TenantSettings, env: Mapping[str, str]) -> Iterator[Check]:
    for check in _tenant_as_such(settings, env):
        yield replace(check, next=check.next.replace(" ID", f" {settings.id}"))
    for source in settings.sources:
        for check in _source(f"tenant {settings.id}: source {source.name}", source):
            typed = check.next.replace(" ID NAME", f" {settings.id} {source.name}")
            yield replace(check, next=typed.replace(" ID", f" {settings.id}"))


def _tenant_as_such(settings: TenantSettings, env: Mapping[str, str]) -> Iterator[Check]:
    about = f"tenant {settings.id}"
    try:
        root = RootKey.from_environment(env, settings.id)
    except KryonixError as error:
        yield _failed(f"{about}: key", error)
        for region in settings.regions:
            evidence = "not looked at, as no key is set"
            yield Check(f"{about}: region {region.name}", UNKNOWN, evidence, error.hint)
    else:
        yield _checked(f"{about}: key", partial(probe_key_store, root, settings.id))
        for region in settings.regions:
            opens = partial(_opens, settings, region, root, env)
            yield _checked(f"{about}: region {region.name}", opens)
    yield _checked(f"{about}: tier", lambda: _tier(settings, env))


def _opens(
    settings: TenantSettings, region: RegionSettings, root: RootKey, env: Mapping[str, str]
) -> str:
    held = Held.of(settings, env, SystemClock())
    repository = open_repository(settings.id, region, root, held)
    return f"opens, with {len(repository.snapshot_ids())} snapshots"


def _tier(settings: TenantSettings, env: Mapping[str, str]) -> str:
    tiers = load_tiers(env)
    tiers.check(settings)
    return f"{settings.tier}, as {tiers.file} has it"


def _source(about: str, settings: SourceSettings) -> Iterator[Check]:
    try:
        findings = source_of(settings).check()
    except KryonixError as error:
        yield _failed(about, error)
        return
    for finding in findings:
        what = f"{about}: {finding.what}"
        if finding.passed:
            yield Check(what, PASSED, finding.evidence)
        else:
            yield Check(what, FAILED, finding.evidence, finding.mend, SourceError.exit_code)


def _checked(what: str, look: Callable[[], str]) -> Check:
    try:
        return Check(what, PASSED, look())
    except KryonixError as error:
        return _failed(what, error)


def _failed(what: str, error: KryonixError) -> Check:
    return Check(what, FAILED, error.message, error.hint, error.exit_code)
