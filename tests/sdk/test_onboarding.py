"""A tenant is taken on whole or not at all, and a run that was cut short is completed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.errors import (
    AlreadyRunning,
    ConfigError,
    KeyRefused,
    KryonixError,
    RepositoryExists,
)
from kryonix_backup.model import RegionName
from kryonix_backup.sdk.client import Client
from kryonix_backup.sdk.onboarding import Onboarding, Step
from kryonix_backup.sdk.tenants import add_tenant, list_tenants
from kryonix_backup.settings import KeySettings, RootKey, Secret, TenantSettings
from kryonix_backup.tenancy.registry import Registry
from tests.sdk.conftest import Machine


def _onboarding(machine: Machine, settings: TenantSettings | None = None) -> Onboarding:
    return Onboarding(settings or machine.settings, machine.key, env=machine.env)


def _journal(machine: Machine) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads((machine.root / "home/onboarding/acme.json").read_text())
    return plain


def _left(machine: Machine) -> list[Path]:
    """What is where the regions would be."""
    return [
        path
        for name in ("primary", "secondary")
        for path in [machine.root / name, *(machine.root / name).rglob("*")]
        if path.exists()
    ]


def test_the_record_says_what_each_step_came_to(machine: Machine) -> None:
    added = add_tenant(machine.settings, env=machine.env)

    record = _journal(machine)
    assert record == added.record
    assert record["status"] == "complete"
    assert list(record["steps"]) == [step.value for step in Step]
    steps = record["steps"]
    assert [row["region"] for row in steps["isolation"]["regions"]] == ["primary", "secondary"]
    assert steps["encryption"]["store"] == "key-file"
    assert steps["storage"]["repository"] == added.client.repository.id
    assert steps["compliance"]["key_rotation"] == {
        "data_days": 30,
        "master_days": 90,
        "archive_days": 365,
    }
    assert steps["compliance"]["keep"]["daily"] == 30
    assert steps["optimisation"]["compression"] == {"files": "adaptive"}
    assert (steps["monitoring"]["rpo_s"], steps["monitoring"]["rto_s"]) == (900, 300)
    assert steps["monitoring"]["findings"] == {"files": []}
    assert machine.key.key_file is not None
    assert machine.key.key_file.reveal().hex() not in json.dumps(record)


def test_a_source_that_cannot_be_read_is_told_and_stops_nothing(machine: Machine) -> None:
    machine.files.rename(machine.root / "elsewhere")

    steps = add_tenant(machine.settings, env=machine.env).record["steps"]

    (finding,) = steps["monitoring"]["findings"]["files"]
    assert str(machine.files) in finding


@pytest.mark.parametrize("count", range(len(Step)))
def test_cut_after_any_step_and_run_again_it_is_complete(machine: Machine, count: int) -> None:
    for step in list(Step)[:count]:
        _onboarding(machine).run(step)

    added = add_tenant(machine.settings, env=machine.env)

    assert added.record["status"] == "complete"
    assert len(added.record["steps"]) == len(Step)
    assert added.client.backup().status == "complete"


@pytest.mark.parametrize("count", range(len(Step) + 1))
def test_taken_back_after_any_step_nothing_is_left(machine: Machine, count: int) -> None:
    onboarding = _onboarding(machine)
    for step in list(Step)[:count]:
        onboarding.run(step)

    assert onboarding.undo() == []

    assert _left(machine) == []
    assert not (machine.root / "home/onboarding/acme.json").exists()
    assert list_tenants(machine.env) == []
    assert onboarding.undo() == []


def test_what_fails_takes_back_what_it_has_made(machine: Machine) -> None:
    other = RootKey(key_file=Secret(b"x" * 32))
    second = machine.settings.region("secondary")
    blocked = replace(
        machine.settings, regions=(replace(second, name=machine.settings.primary.name),)
    )
    Client.onboard(blocked, other, env=machine.env)
    before = set((machine.root / "secondary").rglob("*"))

    with pytest.raises(RepositoryExists):
        add_tenant(machine.settings, env=machine.env)

    assert not (machine.root / "primary").exists()
    assert set((machine.root / "secondary").rglob("*")) == before
    assert list_tenants(machine.env) == []


def test_what_was_there_before_stays(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)
    before = {path: path.read_bytes() for path in _left(machine) if path.is_file()}
    onboarding = _onboarding(machine)
    for step in Step:
        onboarding.run(step)

    onboarding.undo()

    after = {path: path.read_bytes() for path in _left(machine) if path.is_file()}
    assert before.items() <= after.items()
    assert Client(machine.settings, machine.key, env=machine.env).snapshots() == []


def test_a_repository_that_was_used_meanwhile_is_left_whole(machine: Machine) -> None:
    onboarding = _onboarding(machine)
    for step in Step:
        onboarding.run(step)
    client = Client(machine.settings, machine.key, env=machine.env)
    client.backup()

    onboarding.undo()

    assert len(Client(machine.settings, machine.key, env=machine.env).snapshots()) == 1


def test_fips_is_refused_before_anything_is_made(machine: Machine) -> None:
    settings = replace(machine.settings, keys=KeySettings(fips=True))

    with pytest.raises(KeyRefused, match="FIPS"):
        add_tenant(settings, env=machine.env)
    assert _left(machine) == []


def test_a_journal_that_is_none_is_told(machine: Machine) -> None:
    path = machine.root / "home/onboarding/acme.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")

    with pytest.raises(ConfigError, match="journal") as caught:
        _onboarding(machine).run(Step.COMPLIANCE)
    assert isinstance(caught.value, KryonixError)
    assert caught.value.tenant == "acme"


def test_of_two_that_take_a_tenant_on_at_once_none_takes_back_what_the_other_made(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def meanwhile(registry: Registry, settings: TenantSettings) -> None:
        with pytest.raises(AlreadyRunning) as caught:
            add_tenant(settings, env=machine.env)
        refused.append(caught.value)
        return whole(registry, settings)

    whole = Registry.add
    monkeypatch.setattr(Registry, "add", meanwhile)
    added = add_tenant(machine.settings, env=machine.env)

    assert len(refused) == 1
    assert added.client.backup().status == "complete"


def test_regions_that_were_renamed_since_do_not_stop_the_taking_back(machine: Machine) -> None:
    for step in list(Step)[:3]:
        _onboarding(machine).run(step)
    primary, other = machine.settings.regions
    renamed = replace(machine.settings, regions=(primary, replace(other, name=RegionName("west"))))

    left = _onboarding(machine, renamed).undo()

    assert not (machine.root / "primary").exists()
    assert any("no region 'secondary'" in each for each in left)
