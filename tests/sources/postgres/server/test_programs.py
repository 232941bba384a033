from __future__ import annotations

from pathlib import Path

import pytest

from kryonix_backup.errors import ConfigError
from kryonix_backup.sources.postgres.server.programs import VARIABLE, programs_for
from kryonix_backup.testing.postgres import programs_of
from tests.services.postgres import VERSIONS

pytestmark = pytest.mark.service


@pytest.fixture(autouse=True)
def _anew() -> None:
    programs_for.cache_clear()


@pytest.mark.parametrize("major", VERSIONS)
def test_a_server_gets_programs_of_its_own_version(major: int) -> None:
    assert programs_for(major).resolve() == programs_of(major).resolve()


def test_programs_that_fit_are_asked_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, on_path = tmp_path / "named", tmp_path / "path"
    for folder in (named, on_path):
        folder.mkdir()
        for name in ("psql", "pg_dump", "pg_restore"):
            program = folder / name
            program.write_text("#!/bin/sh\ntouch \"$0.asked\"\necho 'pg_dump (PostgreSQL) 99.1'\n")
            program.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(named))
    monkeypatch.setenv("PATH", str(on_path), prepend=":")

    assert programs_for(99) == named
    assert (named / "pg_dump.asked").exists()
    assert not (on_path / "pg_dump.asked").exists()


def test_without_its_own_version_the_next_one_serves() -> None:
    assert programs_for(min(VERSIONS) + 1) == programs_for(sorted(VERSIONS)[1])


def test_none_that_is_new_enough_is_told() -> None:
    with pytest.raises(ConfigError, match="PostgreSQL 99") as raised:
        programs_for(99)

    assert VARIABLE in raised.value.hint


def test_a_folder_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("psql", "pg_dump", "pg_restore"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\necho 'pg_dump (PostgreSQL) 99.1'\n")
        program.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setenv("KRYONIX_PASSPHRASE", "open sesame")

    assert programs_for(99) == tmp_path
    assert "open sesame" not in (tmp_path / "seen").read_text(), "it needs nothing of ours"
    (tmp_path / "psql").unlink()
    programs_for.cache_clear()
    with pytest.raises(ConfigError):
        programs_for(99)
