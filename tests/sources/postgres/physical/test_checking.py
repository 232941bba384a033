from __future__ import annotations

import pytest

from kryonix_backup.sources.postgres.physical.address import ClusterAddress
from kryonix_backup.sources.postgres.physical.checking import check
from kryonix_backup.sources.source import Finding
from tests.sources.postgres.physical.owned import Owned

pytestmark = pytest.mark.service


def _found(owned: Owned) -> dict[str, Finding]:
    return {finding.what: finding for finding in check(owned.address)}


def test_a_cluster_that_can_be_backed_up_says_what_a_backup_holds(owned: Owned) -> None:
    found = _found(owned)

    assert all(finding.passed for finding in found.values())
    assert found["a cluster of one tenant"].evidence.endswith(
        "every database of the server: postgres"
    )
    assert found["incremental backups"].evidence == "summarize_wal is on"
    assert "kryonix source prepare ID NAME" in found["log"].evidence


def test_a_server_that_knows_only_full_backups_says_so(older: Owned) -> None:
    assert "each is a full one" in _found(older)["incremental backups"].evidence


def test_what_a_log_needs_is_looked_at_once_there_is_one(owned: Owned) -> None:
    owned.prepare()
    found = _found(owned)

    assert found["log: slot"].passed
    assert "not followed" in found["log: slot"].evidence
    assert not found["log: max_slot_wal_keep_size"].passed
    assert "alter system" in found["log: max_slot_wal_keep_size"].mend


def test_several_databases_are_a_failure_with_what_to_do(owned: Owned) -> None:
    owned.run("create database another")
    try:
        finding = _found(owned)["a cluster of one tenant"]
        said = {each.what: each for each in check(owned.address._replace(own=True))}
    finally:
        owned.run("drop database another")

    assert not finding.passed
    assert "another, postgres" in finding.evidence
    assert "own=yes" in finding.mend
    assert said["a cluster of one tenant"].passed


def test_who_would_wait_for_us_is_told(owned: Owned) -> None:
    owned.run("alter system set synchronous_standby_names = '*'", "select pg_reload_conf()")
    try:
        with owned.server.connect() as connection:
            connection.execute("set synchronous_commit = 'local'")
        assert not _found(owned)["synchronous_standby_names"].passed
    finally:
        owned.run("alter system reset synchronous_standby_names", "select pg_reload_conf()")


def test_a_server_that_does_not_answer_is_one_failure() -> None:
    (finding,) = check(ClusterAddress.parse("postgresql+physical://u@127.0.0.1:1/"))

    assert not finding.passed
    assert finding.mend
