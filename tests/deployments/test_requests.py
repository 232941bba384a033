from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from deployments.commands import _FLOWS
from deployments.requests import flow_request, parse_parameters
from flows.backup import backup_tenant
from flows.follow import follow_logs
from flows.keys import rotate_keys
from flows.onboard import onboard_tenant
from flows.restore import restore_tenant
from flows.rollback import rollback_restore
from kryonix_backup.errors import ConfigError, UsageError
from tests.deployments.test_register import ACME, LOGGED

PAGE = Path(__file__).resolve().parents[2] / "docs" / "command.md"
FLOWS: dict[str, Flow[..., Any]] = {
    "backup": backup_tenant, "restore": restore_tenant, "rollback": rollback_restore,
    "follow": follow_logs, "onboard": onboard_tenant, "keys": rotate_keys,
}  # fmt: skip


def test_the_page_names_every_flow_with_its_parameters() -> None:
    section = PAGE.read_text().partition("### kryonix flow")[2].partition("###")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.M))

    assert set(rows) == set(FLOWS) == set(_FLOWS)
    for name, flow in FLOWS.items():
        asked = set(parameter_schema(flow).properties) - {"tenant", "pool"}
        assert set(re.findall(r"`(\w+)`", rows[name])) == asked, name


def test_values_are_json_where_they_are_json() -> None:
    assert parse_parameters(['sources=["db"]', "strict=true", "to={}", "include=*.pdf"]) == {
        "sources": ["db"], "strict": True, "to": {}, "include": "*.pdf",
    }  # fmt: skip


def test_an_id_of_digits_stays_text() -> None:
    assert parse_parameters(["snapshot=20261123"]) == {"snapshot": "20261123"}


@pytest.mark.parametrize("pairs", [["kind"], ["=full"], ["kind=full", "kind=log"]])
def test_what_is_no_parameter_is_refused(pairs: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_parameters(pairs)


@pytest.mark.parametrize(
    ("name", "parameters", "deployment"),
    [
        ("backup", {}, "backup-tenant/acme-full"),
        ("backup", {"kind": "incremental"}, "backup-tenant/acme-incremental"),
        ("restore", {}, "restore-tenant/restore-enterprise"),
        ("rollback", {}, "rollback-restore/rollback"),
        ("onboard", {}, "onboard-tenant/onboard"),
        ("backup", {"kind": "log"}, "backup-tenant/acme-log"),
    ],
)
def test_a_name_leads_to_its_deployment(
    name: str, parameters: dict[str, str], deployment: str
) -> None:
    request = flow_request(name, LOGGED, parameters)

    assert request.deployment == deployment
    assert request.parameters["tenant"] == "acme"
    assert request.tags == ("tenant:acme", "tier:enterprise", name)


def test_another_tenant_cannot_be_named_in_a_parameter() -> None:
    assert flow_request("backup", ACME, {"tenant": "globex"}).parameters["tenant"] == "acme"


def test_following_is_asked_for_a_tenants_pool() -> None:
    request = flow_request("follow", LOGGED, {})

    assert request.deployment == "follow-logs/enterprise"
    assert request.parameters == {"pool": "enterprise"}


@pytest.mark.parametrize(("name", "parameters"), [("follow", {}), ("backup", {"kind": "log"})])
def test_a_tenant_without_a_log_has_none_to_keep(name: str, parameters: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="keeps a transaction log"):
        flow_request(name, ACME, parameters)


@pytest.mark.parametrize(("name", "parameters"), [("mend", {}), ("backup", {"kind": "half"})])
def test_what_does_not_exist_is_refused(name: str, parameters: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        flow_request(name, ACME, parameters)


@pytest.mark.parametrize(
    "to", [{"db": "postgresql://u:hunter2@h/db"}, "postgresql://u:hunt/er2@h/db"]
)
def test_a_password_never_gets_to_the_server(to: object) -> None:
    with pytest.raises(UsageError, match="holds a password") as refused:
        flow_request("restore", ACME, {"to": to, "sources": ["db"]})

    assert "hunt" not in refused.value.message


def test_every_flow_that_can_be_asked_for_is_offered() -> None:
    for name in _FLOWS:
        assert flow_request(name, LOGGED, {}).deployment
