"""`kryonix verify` exits 0 only when everything can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Terminal


def _pack(root: Path) -> Path:
    packs = [path for path in (root / "acme-primary" / "packs").rglob("*") if path.is_file()]
    return max(packs, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("level", ["structure", "sample", "data"])
def test_a_sound_repository_is_ok(backed_up: Terminal, level: str) -> None:
    said = backed_up("verify", "acme", "--level", level, "--json")

    assert said.code == 0
    assert {"level", "status", "snapshots", "packs", "chunks", "bytes_read", "damage"} <= set(
        said.json
    )
    assert (said.json["level"], said.json["status"], said.json["damage"]) == (level, "ok", [])


def test_a_flipped_byte_is_named_with_what_depends_on_it(backed_up: Terminal) -> None:
    pack = _pack(backed_up.root)
    body = bytearray(pack.read_bytes())
    body[len(body) // 3] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(body)

    said = backed_up("verify", "acme", "--level", "data", "--json")
    people = backed_up("verify", "acme", "--level", "data")

    assert (said.code, people.code) == (55, 55)
    assert said.json["status"] == "damaged"
    assert pack.name in said.json["damage"][0]["object"]
    assert said.json["damage"][0]["affected"] >= 1
    assert pack.name in people.out
    assert "next: Do not delete anything." in people.out


def test_a_lost_pack_is_found_without_reading(backed_up: Terminal) -> None:
    _pack(backed_up.root).unlink()

    assert backed_up("verify", "acme").code == 55


def test_one_snapshot_can_be_checked(backed_up: Terminal) -> None:
    backed_up("backup", "acme")

    assert backed_up("verify", "acme", "--snapshot", "latest", "--json").json["snapshots"] == 1


def test_a_log_says_which_moments_it_leads_to(with_log: Terminal) -> None:
    region = ("--region", f"primary={with_log.url('primary')}")

    said = with_log("verify", "acme", *region, "--level", "data", "--json")
    people = with_log("verify", "acme", *region)

    assert (said.code, people.code, said.json["segments"]) == (0, 0, 13)
    (found,) = said.json["logs"]["db"]["ranges"]
    assert f"db: any moment from {found['from']} to {found['to']}" in people.out
    assert "13 segments of logs" in people.out


def test_a_lost_segment_says_what_it_costs_and_what_to_do(with_log: Terminal) -> None:
    region = ("--region", f"primary={with_log.url('primary')}")
    (lost,) = (with_log.root / "primary" / "logs" / "db").glob("*/00000004")
    lost.unlink()

    said = with_log("verify", "acme", *region, "--json")
    people = with_log("verify", "acme", *region)

    assert (said.code, people.code) == (55, 55)
    (damage,) = said.json["damage"]
    assert damage["object"].endswith("/00000004")
    assert damage["affects"][0].startswith("db: every moment after 2026-11-23T12:00:30")
    assert said.json["logs"]["db"]["needs_full"]
    assert "db: none after 2026-11-23T12:00:30+00:00: logs/db/" in people.out
    assert "next: 'kryonix backup acme --source db --kind log', then a full backup" in people.out
