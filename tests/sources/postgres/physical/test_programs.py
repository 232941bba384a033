from __future__ import annotations

import getpass
import os
from pathlib import Path

import pytest

from kryonix_backup.errors import ConfigError, RestoreError
from kryonix_backup.sources.postgres.physical.programs import Account, run, server_of
from kryonix_backup.sources.postgres.server.programs import VARIABLE
from kryonix_backup.testing.postgres import programs_of
from tests.services.postgres import VERSIONS
from tests.sources.postgres.physical.owned import account

pytestmark = pytest.mark.service


@pytest.mark.parametrize("major", VERSIONS)
def test_a_cluster_needs_the_server_of_its_own_version(major: int) -> None:
    assert server_of(major, combines=major >= 17).resolve() == programs_of(major).resolve()


def test_another_version_does_not_serve() -> None:
    with pytest.raises(ConfigError, match="PostgreSQL 16's own server") as raised:
        server_of(16, combines=False)
    assert VARIABLE in raised.value.hint


def test_what_puts_incremental_backups_together_is_asked_for() -> None:
    with pytest.raises(ConfigError):
        server_of(min(VERSIONS), combines=True)


def test_a_program_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    programs = programs_of(VERSIONS[0])

    assert "PostgreSQL" in run([programs / "postgres", "--version"], account())
    with pytest.raises(RestoreError, match=r"pg_controldata failed \(1\): .*could not"):
        run([programs / "pg_controldata", "-D", tmp_path / "none"], account())


def test_files_are_of_a_name_or_of_who_has_the_directory(tmp_path: Path) -> None:
    mine = Account(os.geteuid(), os.getegid())
    named = Account.of("nobody", tmp_path)

    assert named == account() if os.geteuid() == 0 else named == mine
    account().give(tmp_path)
    assert Account.of(None, tmp_path).uid == account().uid


def test_an_account_that_is_not_there_is_told(tmp_path: Path) -> None:
    if getpass.getuser() != "root":
        return  # whoever is not root can only be himself
    with pytest.raises(RestoreError, match="no account 'nosuchaccount'") as raised:
        Account.of("nosuchaccount", tmp_path)
    assert "?owner=ACCOUNT" in raised.value.hint


def test_a_program_is_asked_for_its_version_without_our_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("postgres", "pg_controldata", "pg_verifybackup", "pg_waldump"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\necho 'postgres (PostgreSQL) 99.1'\n")
        program.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setenv("KRYONIX_PASSPHRASE", "open sesame")

    assert server_of(99, combines=False) == tmp_path
    assert "open sesame" not in (tmp_path / "seen").read_text()
