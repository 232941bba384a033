from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from blocks.names import backup_deployment, qualified
from kryonix_backup.model import BackupKind

NAMES = st.from_regex(r"[a-c](?:[a-c0-9-]{0,6}[a-c0-9])?", fullmatch=True)


@given(tenant=NAMES, name=NAMES, other=NAMES, others_name=NAMES)
def test_no_two_tenants_share_a_name(tenant: str, name: str, other: str, others_name: str) -> None:
    same = (tenant, name) == (other, others_name)

    assert (qualified(tenant, name) == qualified(other, others_name)) == same


def test_a_hyphen_never_moves_from_one_name_to_the_other() -> None:
    assert qualified("a", "b-c") != qualified("a-b", "c")
    assert qualified("acme", "primary") == "acme-primary"


def test_a_backups_deployment_is_named_by_tenant_and_kind() -> None:
    assert backup_deployment("acme", BackupKind.LOG) == "backup-tenant/acme-log"
