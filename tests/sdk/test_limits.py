"""Limits hold at every door: backup, restore, verification, from settings alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kryonix_backup.clock import SystemClock
from kryonix_backup.errors import ConfigError
from kryonix_backup.limits import LimitSettings
from kryonix_backup.model import MIB, SourceName, Tier
from kryonix_backup.sdk.client import Client, RestoreRequest
from kryonix_backup.sdk.limits import Held, default_tier, promised
from kryonix_backup.sdk.tenants import add_tenant, connect
from kryonix_backup.storage.bandwidth import SLACK_S
from kryonix_backup.testing.clock import FixedClock
from tests.sdk.conftest import Machine

FILES = SourceName("files")
SLOW = LimitSettings(cores=1, bandwidth_bits_s=8 * 10**6)


def test_backup_verification_and_restore_move_no_more_than_the_rate(machine: Machine) -> None:
    (machine.files / "noise").write_bytes(os.urandom(3 * MIB))
    clock = FixedClock()
    settings = replace(machine.settings, limits=SLOW)
    client = Client.onboard(settings, machine.key, env=machine.env, clock=clock)

    begun = clock.monotonic()
    report = client.backup()
    assert (
        clock.monotonic() - begun >= report.snapshot.sources[FILES].bytes_stored / 10**6 - SLACK_S
    )
    steps: tuple[Callable[[], object], ...] = (
        lambda: client.restore(RestoreRequest(to={"files": f"files://{machine.root}/back"})),
        client.verify,
    )
    for step in steps:
        begun = clock.monotonic()
        step()
        assert clock.monotonic() > begun
    assert (machine.root / "back" / "noise").stat().st_size == 3 * MIB


def test_what_works_is_on_the_tenants_cores_and_in_its_memory(machine: Machine) -> None:
    held = Held.of(replace(machine.settings, limits=SLOW), machine.env, SystemClock())

    with held.working():
        assert len(os.sched_getaffinity(0)) == 1
        assert list((machine.root / "home" / "limits" / "acme").glob("memory-*"))


def test_a_tier_that_is_not_known_here_stops_no_backup(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(machine.settings, tier=Tier("gold"))
    Client.onboard(settings, machine.key, env=machine.env).backup()

    with caplog.at_level(logging.WARNING):
        bare = connect("acme", regions=settings.regions, env=machine.env)

    assert bare.settings == settings
    assert "tier gold of tenant acme is not in" in caplog.text
    with pytest.raises(ConfigError, match="no tier 'gold'"):
        promised(settings, machine.env)


def test_a_tenant_is_taken_on_within_its_tier_only(machine: Machine) -> None:
    for change in ({"tier": Tier("gold")}, {"limits": LimitSettings(cores=3)}):
        with pytest.raises(ConfigError, match="tier"):
            add_tenant(replace(machine.settings, **change), env=machine.env)

    assert not (machine.root / "home" / "tenants").exists()
    add_tenant(replace(machine.settings, limits=SLOW), env=machine.env)


def test_what_was_promised_has_the_limits_that_hold(machine: Machine) -> None:
    shown = promised(replace(machine.settings, limits=SLOW), machine.env)

    assert (shown["name"], shown["rpo_s"]) == ("professional", 900)
    assert shown["limits"] == {
        "cores": 1, "memory_bytes": 4 * 10**9, "bandwidth_bits_s": 8 * 10**6, "workers": 2,
    }  # fmt: skip


def test_a_wrong_file_of_tiers_is_loud(machine: Machine, tmp_path: Path) -> None:
    wrong = tmp_path / "tiers.yaml"
    wrong.write_text("tiers: 7")

    with pytest.raises(ConfigError, match=r"tiers\.yaml line 1"):
        Client(machine.settings, machine.key, env={**machine.env, "KRYONIX_TIERS": str(wrong)})
    assert default_tier({}) == "standard"
