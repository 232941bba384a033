"""Flows order tasks and touch no bytes; what they are asked for is checked by the server."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from flows.backup import backup_tenant
from flows.follow import follow_logs
from flows.keys import rotate_keys
from flows.onboard import onboard_tenant
from flows.restore import restore_tenant
from flows.rollback import rollback_restore
from tests.architecture.tree import Module, modules

FLOWS: list[Flow[..., Any]] = [backup_tenant, onboard_tenant, restore_tenant, rollback_restore]


@pytest.mark.parametrize("module", modules("flows"), ids=lambda module: module.path)
def test_a_flow_opens_nothing_and_handles_no_bytes(module: Module) -> None:
    names = {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }

    assert not names & {"open", "bytes", "bytearray", "memoryview", "Client", "Path"}
    assert not imported & {"os", "io", "pathlib", "shutil", "boto3"}


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_the_server_can_check_a_tenants_id(flow: Flow[..., Any]) -> None:
    schema = parameter_schema(flow).model_dump_for_openapi()

    assert schema["properties"]["tenant"]["pattern"]
    assert schema["properties"]["tenant"]["maxLength"] == 40
    assert "tenant" in schema["required"]


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_a_flow_has_a_name_for_its_run_a_time_limit_and_a_description(
    flow: Flow[..., Any],
) -> None:
    assert flow.flow_run_name
    assert flow.timeout_seconds
    assert flow.description
    assert flow.description.endswith(".")


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_no_parameter_is_a_secret(flow: Flow[..., Any]) -> None:
    names = set(parameter_schema(flow).properties)

    assert not [name for name in names if "pass" in name or "secret" in name or "key" in name]


@pytest.mark.parametrize("flow", [*FLOWS, follow_logs, rotate_keys], ids=lambda flow: flow.name)
def test_the_form_explains_every_parameter(flow: Flow[..., Any]) -> None:
    for name, schema in parameter_schema(flow).properties.items():
        assert str(schema.get("description", "")).endswith("."), name


def test_a_pool_is_a_name_as_a_tenant_is() -> None:
    pool = parameter_schema(follow_logs).properties["pool"]

    assert (pool["type"], pool["maxLength"]) == ("string", 40)
