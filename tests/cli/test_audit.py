"""`kryonix audit` proves, shows and accepts."""

from __future__ import annotations

import shutil

import pytest

from kryonix_backup.errors import AuditBroken, RolledBack
from tests.cli.conftest import Terminal


def test_a_whole_chain_is_proved(backed_up: Terminal) -> None:
    said = backed_up("audit", "acme", "verify")
    assert said.code == 0
    assert said.out.startswith("ok: 3 records")
    assert "public key: " in said.out

    plain = backed_up("audit", "acme", "verify", "--json").json
    assert (plain["tenant"], plain["status"], plain["records"]) == ("acme", "ok", 4)
    assert backed_up("audit", "verify", "acme").code == 0, "the other order is understood too"


def test_what_was_done_is_shown(backed_up: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRYONIX_ACTOR", "ana\x1b[2J")
    monkeypatch.setenv("KRYONIX_REASON", "")
    assert backed_up("--reason", "ticket 4711", "snapshots", "acme").code == 0
    said = backed_up("audit", "acme", "show")
    assert said.code == 0
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines] == ["number", "1", "2", "3", "4"]
    assert "ticket 4711" in lines[-1]
    assert "ana\\x1b[2J" in lines[-1]
    assert "\x1b" not in said.out

    plain = backed_up("audit", "acme", "show", "--action", "backup", "--json").json
    assert [row["result"] for row in plain["records"]] == ["begun", "complete"]
    assert backed_up("audit", "acme", "show", "--limit", "1").out.count("\n") == 2
    assert backed_up("audit", "acme", "show", "--since", "2999-01-01").out == "no records\n"


def test_a_changed_record_is_named(backed_up: Terminal) -> None:
    path = backed_up.root / "acme-primary/audit/000000000002"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    said = backed_up("audit", "acme", "verify")
    assert said.code == AuditBroken.exit_code
    assert "record 2 changed" in said.out
    assert "kryonix audit acme accept" in said.out
    said = backed_up("audit", "acme", "accept", "--reason", "the disk is old")
    assert said.code == 0
    assert "accepted: record 2 changed" in said.out


def test_a_repository_that_was_set_back_is_told(backed_up: Terminal) -> None:
    primary, older = backed_up.root / "acme-primary", backed_up.root / "older"
    shutil.copytree(primary, older)
    assert backed_up("backup", "acme").code == 0
    shutil.rmtree(primary)
    shutil.move(older, primary)

    said = backed_up("backup", "acme")
    assert said.code == RolledBack.exit_code
    assert "records 4 to 5" in said.err
    assert "audit acme accept" in said.err
    said = backed_up("audit", "acme", "verify")
    assert said.code == RolledBack.exit_code
    assert "records 4 to 5 rolled back" in said.out
    assert backed_up("audit", "acme", "accept", "--reason", "known").code == 0
    assert backed_up("backup", "acme").code == 0


def test_wrong_words_are_refused(backed_up: Terminal) -> None:
    assert backed_up("audit", "acme", "nope").code == 2
    assert backed_up("audit", "acme").code == 2
    assert backed_up("audit", "acme", "accept").code == 2
    assert backed_up("audit", "--help").code == 0
    assert backed_up("audit", "acme", "show", "--help").code == 0
