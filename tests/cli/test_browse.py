"""What snapshots hold, for people and for programs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

from kryonix_backup.cli.browse import _time_of
from tests.cli.conftest import Terminal


def test_snapshots_are_listed_oldest_first(backed_up: Terminal) -> None:
    backed_up("backup", "acme", "--kind", "incremental")
    said = backed_up("snapshots", "acme", "--json").json

    assert said["tenant"] == "acme"
    assert [row["kind"] for row in said["snapshots"]] == ["full", "incremental"]
    first, second = said["snapshots"]
    assert second["parent"] == first["id"]
    assert {"id", "kind", "status", "parent", "started", "finished", "sources"} <= set(first)
    assert first["sources"]["files"]["entries"] > 0
    assert first["id"] in backed_up("snapshots", "acme").out


def test_a_tenant_without_snapshots_has_an_empty_list(kryonix: Terminal) -> None:
    kryonix.add()

    assert kryonix("snapshots", "acme", "--json").json == {"tenant": "acme", "snapshots": []}
    assert kryonix("snapshots", "acme").out == "no snapshots yet\n"


def test_ls_lists_a_path_and_what_is_below(backed_up: Terminal) -> None:
    said = backed_up("ls", "acme", "latest", "files/deep", "--json").json

    assert [(entry["path"], entry["kind"]) for entry in said["entries"]] == [
        ("files/deep", "dir"),
        ("files/deep/letter.txt", "file"),
    ]
    assert {"source", "path", "kind", "size", "mode", "mtime_ns"} <= set(said["entries"][1])
    assert "files/deep/letter.txt\n" in backed_up("ls", "acme").out
    assert backed_up("ls", "acme", "latest", "files/none").code == 56


def test_a_name_cannot_command_the_terminal(backed_up: Terminal) -> None:
    (backed_up.root / "files" / "evil\x1b[2J\n").touch()
    backed_up("backup", "acme")

    assert "\x1b" not in backed_up("ls", "acme").out
    paths = [entry["path"] for entry in backed_up("ls", "acme", "--json").json["entries"]]
    assert "files/evil\x1b[2J\n" in paths


def test_a_link_shows_where_it_leads(backed_up: Terminal) -> None:
    (backed_up.root / "files" / "link").symlink_to("deep/letter.txt")
    backed_up("backup", "acme")

    assert "files/link -> deep/letter.txt" in backed_up("ls", "acme").out


def test_a_time_out_of_range_is_still_listed() -> None:
    assert _time_of(0) == "1970-01-01 00:00:00Z"
    assert _time_of(1 << 62) == "2116-02-20 23:53:38Z"
    assert _time_of(1 << 80) == "out of range"


def test_cat_gives_the_very_bytes(backed_up: Terminal) -> None:
    body = (backed_up.root / "files" / "numbers").read_bytes()
    command = [sys.executable, "-m", "kryonix_backup.cli.main", "cat", "acme", "latest"]
    ended = subprocess.run([*command, "files/numbers"], capture_output=True, check=True)

    assert ended.stdout == body
    said = backed_up("cat", "acme", "latest", "files/numbers", "--json").json
    assert (said["size"], said["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_cat_of_a_directory_is_refused(backed_up: Terminal) -> None:
    assert backed_up("cat", "acme", "latest", "files/deep").code == 2
    assert backed_up("cat", "acme", "latest", "files/deep", "--json").code == 2


def test_diff_names_every_change(backed_up: Terminal) -> None:
    first = backed_up("snapshots", "acme", "--json").json["snapshots"][0]["id"]
    (backed_up.root / "files" / "new").write_text("new")
    (backed_up.root / "files" / "deep" / "letter.txt").write_text("changed")
    (backed_up.root / "files" / "numbers").unlink()
    backed_up("backup", "acme")

    said = backed_up("diff", "acme", first, "--json").json
    changes = {change["path"]: change["status"] for change in said["changes"]}

    assert said["a"] == first
    assert changes["files/new"] == "added"
    assert changes["files/deep/letter.txt"] == "modified"
    assert changes["files/numbers"] == "removed"
    assert "+ files/new  (3 B)" in backed_up("diff", "acme", first, "latest").out


def test_an_unregistered_tenant_is_read_from_its_region(backed_up: Terminal) -> None:
    region = f"--region=primary={backed_up.url('acme-primary')}"
    backed_up("tenant", "remove", "acme")

    for words in (("snapshots",), ("ls",), ("verify",)):
        assert backed_up(*words, "acme").code == 12
        assert backed_up(*words, "acme", region).code == 0
    assert json.loads(backed_up("ls", "acme", region, "--json").out)["entries"]
    assert backed_up("ls", "acme", region, "--from-region", "mars").code == 10


def test_moments_say_what_can_be_restored(with_log: Terminal) -> None:
    region = ("--region", f"primary={with_log.url('primary')}")

    said = with_log("snapshots", "acme", *region, "--moments", "--json").json
    people = with_log("snapshots", "acme", *region, "--moments").out
    plain = with_log("snapshots", "acme", *region, "--json").json

    assert sorted(said["restorable"]) == ["crm", "db"]
    (found,) = said["restorable"]["db"]["ranges"]
    assert found["from"] == "2026-11-23T12:00:00+00:00"
    assert found["to"] == "2026-11-23T12:01:00+00:00"
    assert said["restorable"]["db"]["gaps"] == []
    assert f"db: any moment from {found['from']} to {found['to']}" in people
    assert "restorable" not in plain
    plan = with_log(
        "restore", "acme", *region, "--source", "db", "--at", found["to"], "--dry-run", "--json"
    )
    assert plan.code == 0
    assert plan.json["steps"][0]["log"]["last"] == 6
