"""Every command and step leaves its record in the tenant's audit chain."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kryonix_backup.errors import ConfigError, RolledBack, SnapshotUnknown, UsageError
from kryonix_backup.model import BackupKind
from kryonix_backup.sdk.client import Client, Level, RestoreRequest
from kryonix_backup.sdk.tenants import add_tenant, remove_tenant
from tests.sdk.conftest import Machine


@pytest.fixture
def client(machine: Machine) -> Client:
    return Client.onboard(machine.settings, machine.key, env=machine.env)


def told(client: Client) -> list[tuple[str, str, str]]:
    """What was done so far, without what looking itself leaves."""
    found = [each.record.deed for each in client.audit_records(limit=99)]
    rows = [(deed.action, deed.object, deed.result) for deed in found]
    return [row for row in rows if not row[0].startswith("audit")]


def test_every_use_leaves_its_record(client: Client, machine: Machine) -> None:
    backup = client.backup().snapshot.id
    client.snapshots()
    client.restorable()
    list(client.ls("latest"))
    list(client.cat("latest", "files/deep/letter.txt"))
    list(client.diff("latest", "latest"))
    client.verify(Level.STRUCTURE)
    target = f"files://{machine.root / 'out'}"
    restored = client.restore(RestoreRequest(to={"files": target}))

    restore = f"{restored.plan.restore} {backup}"
    assert told(client) == [
        ("tenant add", "", "ok"),
        ("backup", backup, "begun"),
        ("backup", backup, "complete"),
        ("snapshots", "", "ok"),
        ("moments", "", "ok"),
        ("ls", backup, "ok"),
        ("cat", backup, "ok"),
        ("diff", f"{backup} {backup}", "ok"),
        ("verify", "", "ok"),
        ("restore", restore, "begun"),
        ("restore", restore, "complete"),
    ]
    assert client.verify_audit().status == "ok"


def test_the_chain_names_no_file_and_no_secret(client: Client) -> None:
    client.backup()
    list(client.cat("latest", "files/deep/letter.txt"))
    with pytest.raises(SnapshotUnknown):
        list(client.cat("letter.txt", "letter.txt"))
    text = str([each.to_plain() for each in client.audit_records(limit=99)])

    assert "letter" not in text
    assert bytes(range(32)).hex() not in text
    assert told(client)[-1] == ("cat", "", "SnapshotUnknown")


def test_what_failed_or_was_undone_is_in_the_chain(client: Client, machine: Machine) -> None:
    client.backup()
    plan = client.plan_restore(RestoreRequest(to={"files": f"files://{machine.root / 'out'}"}))
    client.begin_restore(plan)
    client.roll_back_restore(plan)
    with pytest.raises(ConfigError):
        client.back_up_source(client.begin_backup(BackupKind.FULL), "nope")

    results = [(action, result) for action, _, result in told(client)][3:]
    assert results == [
        ("restore", "begun"), ("rollback", "begun"), ("rollback", "ok"),
        ("backup", "begun"), ("backup", "ConfigError"),
    ]  # fmt: skip


def test_every_region_has_its_own_chain(client: Client, machine: Machine) -> None:
    client.backup()
    other = Client(machine.settings, machine.key, env=machine.env, region="secondary")
    assert told(other) == [("tenant add", "", "ok")]


def test_a_tenant_that_is_removed_leaves_a_record(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)
    remove_tenant("acme", machine.env)
    client = Client(machine.settings, machine.key, env=machine.env)
    assert told(client)[-1] == ("tenant remove", "", "ok")


def test_a_tenant_whose_store_is_gone_can_be_removed(machine: Machine) -> None:
    add_tenant(machine.settings, env=machine.env)
    shutil.rmtree(machine.root / "primary")
    assert remove_tenant("acme", machine.env).id == "acme"


def _set_back(client: Client, machine: Machine) -> None:
    """Make a backup, and bring back the directory as it was before."""
    primary, older = machine.root / "primary", machine.root / "older"
    shutil.copytree(primary, older)
    client.backup()
    shutil.rmtree(primary)
    shutil.move(older, primary)


def test_a_repository_that_was_set_back_is_noticed_by_the_next_command(
    client: Client, machine: Machine
) -> None:
    client.backup()
    _set_back(client, machine)
    again = Client(machine.settings, machine.key, env=machine.env)
    for use in (again.backup, again.verify, again.snapshots, lambda: list(again.ls("latest"))):
        with pytest.raises(RolledBack, match="records 4 to 5") as caught:
            use()
        assert caught.value.tenant == "acme"
    report = again.verify_audit()
    assert [each[:3] for each in report.findings] == [("rolled back", 4, 5)]

    with pytest.raises(UsageError):
        again.accept_audit(" ")
    assert again.accept_audit("the disk was brought back").status == "ok"
    again.backup()
    assert again.verify_audit().accepted


def test_a_bare_machine_says_what_it_cannot_know(
    client: Client, machine: Machine, tmp_path: Path
) -> None:
    client.backup()
    _set_back(client, machine)
    env = {**machine.env, "KRYONIX_HOME": str(tmp_path / "bare")}
    report = Client(machine.settings, machine.key, env=env).verify_audit()
    assert report.status == "ok"
    assert "has not seen this chain before" in report.remarks[0]
    report = Client(machine.settings, machine.key, env=env).verify_audit()
    assert not report.remarks, "by now it has"
