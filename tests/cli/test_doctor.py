"""`kryonix doctor` exits with the code of what it found."""

from __future__ import annotations

import shutil

import pytest

from tests.cli.conftest import Terminal


def test_a_machine_that_is_well_exits_0(kryonix: Terminal) -> None:
    kryonix.add()
    said = kryonix("doctor", "--json")

    assert (said.code, said.json["status"]) == (0, "pass")
    assert {"what", "status", "evidence", "next", "exit_code"} == set(said.json["checks"][0])
    assert "ok    home" in kryonix("doctor").out


def test_a_lost_region_exits_with_its_code(kryonix: Terminal) -> None:
    kryonix.add()
    shutil.rmtree(kryonix.root / "acme-primary")
    said = kryonix("doctor")

    assert said.code == 51
    assert "FAIL  tenant acme: region primary" in said.out
    assert "next: " in said.out


def test_a_missing_key_exits_15(kryonix: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    kryonix.add()
    monkeypatch.delenv("KRYONIX_KEY_FILE")

    assert kryonix("doctor", "--json").code == 15
