"""A tenant that leaves is taken off Prefect, registered here or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.deployments.conftest import Kryonix
from tests.deployments.test_local import ask

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]


def names(up: dict[str, Any], what: str) -> set[str]:
    return {each["name"] for each in ask(up, f"{what}/filter", {})}


def test_nothing_of_a_tenant_stays_and_all_that_is_shared(
    kryonix: Kryonix, up: dict[str, Any], tmp_path: Path
) -> None:
    kryonix.add_tenant("leaves", "standard", documents=tmp_path)
    kryonix.run("deploy", "leaves", "--active")
    kryonix.run("tenant", "remove", "leaves")

    removed = kryonix.run("deploy", "leaves", "--remove")["removed"]["leaves"]

    assert set(removed) == {
        "deployment backup-tenant/leaves-full", "deployment backup-tenant/leaves-incremental",
        "deployment rotate-keys/leaves", "block kryonix-tenant/leaves", "block kryonix-key/leaves",
        "block kryonix-region/leaves-primary", "limit kryonix-backups-leaves",
    }  # fmt: skip
    left = names(up, "deployments")
    assert left >= {"onboard", "rollback", "restore-standard"}
    assert not [each for each in left if each.startswith("leaves")]
    assert not [each for each in names(up, "block_documents") if each.startswith("leaves")]
    assert kryonix.run("deploy", "leaves", "--remove")["removed"] == {"leaves": []}
    assert kryonix.run("deploy", "leaves", "--remove", "--active", code=2)["error"]["hint"]
