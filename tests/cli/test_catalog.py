"""Past runs are remembered, and brought back where they were lost."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cli.conftest import Terminal


def test_every_run_is_in_the_history(backed_up: Terminal) -> None:
    backed_up("verify", "acme")
    backed_up("backup", "acme", "--kind", "log")
    rows = backed_up("catalog", "history", "acme", "--json").json["sessions"]

    assert [(row["operation"], row["status"]) for row in rows] == [
        ("backup", "failed"), ("verify", "ok"), ("backup", "complete"),
    ]  # fmt: skip
    assert {
        "run", "tenant", "operation", "kind", "snapshot", "status", "started", "finished",
        "bytes_read", "bytes_new", "bytes_stored", "chunks", "chunks_new", "duration_s", "error",
    } == set(rows[0])  # fmt: skip
    people = backed_up("catalog", "history", "acme", "--limit", "1").out
    assert "failed" in people
    assert "none of this tenant's sources keeps a transaction log" in people


def test_nothing_happened_yet(kryonix: Terminal) -> None:
    assert kryonix("catalog", "history", "acme").out == "no runs yet\n"


def test_a_lost_home_is_rebuilt_from_the_repository(
    backed_up: Terminal, kryonix_home: Path
) -> None:
    before = backed_up("catalog", "history", "acme", "--json").json
    tenants = backed_up("tenant", "list", "--json").json
    shutil.rmtree(kryonix_home)
    region = f"primary={backed_up.url('acme-primary')}"

    said = backed_up("catalog", "rebuild", "acme", "--region", region, "--json").json

    assert (said["tenant"], said["snapshots"]) == ("acme", 1)
    assert backed_up("catalog", "history", "acme", "--json").json == before
    assert backed_up("tenant", "list", "--json").json == tenants
    assert backed_up("backup", "acme").code == 0


def test_a_catalog_that_is_no_database_stops_no_backup(
    backed_up: Terminal, kryonix_home: Path
) -> None:
    (kryonix_home / "catalog.db").write_bytes(b"no database" * 1000)

    assert backed_up("backup", "acme").code == 0
    assert backed_up("catalog", "history", "acme").code == 17
    (kryonix_home / "catalog.db").unlink()
    assert len(backed_up("catalog", "history", "acme", "--json").json["sessions"]) == 2


def test_a_home_that_cannot_be_written_stops_no_backup(
    backed_up: Terminal, kryonix_home: Path
) -> None:
    shutil.rmtree(kryonix_home / "outbox", ignore_errors=True)
    (kryonix_home / "outbox").write_text("in the way")

    said = backed_up("backup", "acme")

    assert said.code == 0
    assert "run not recorded" in said.err
