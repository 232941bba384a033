"""`kryonix backup` says what it stored, and 3 when something was left out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from kryonix_backup.backup.follow import LogReport
from kryonix_backup.cli.backup import backup_lines, log_answer, problem_lines
from kryonix_backup.model import ChainId, SourceName
from kryonix_backup.testing.clock import NOON
from tests.cli.conftest import Terminal


def test_the_report_is_as_the_contract_names_it(kryonix: Terminal) -> None:
    kryonix.add()
    said = kryonix("backup", "acme", "--json")

    assert said.code == 0
    assert said.err == ""
    assert {
        "snapshot", "tenant", "kind", "status", "bytes_read", "bytes_new", "bytes_stored", "chunks",
        "chunks_new", "duration_s", "entries", "entries_unchanged", "problems", "sources",
    } <= set(said.json)  # fmt: skip
    assert (said.json["kind"], said.json["status"]) == ("full", "complete")
    assert set(said.json["sources"]) == {"files"}


def test_people_are_told_the_same(kryonix: Terminal) -> None:
    kryonix.add()
    said = kryonix("backup", "acme", "--kind", "incremental")

    assert said.code == 0
    assert "incremental backup complete" in said.out
    assert "files: " in said.out


def test_only_the_named_source_is_backed_up(kryonix: Terminal) -> None:
    sources = [f"--source={name}={kryonix.source('files')}" for name in ("one", "two")]
    kryonix("tenant", "add", "acme", f"--region=primary={kryonix.url('primary')}", *sources)

    assert set(kryonix("backup", "acme", "--source", "two", "--json").json["sources"]) == {"two"}
    assert set(kryonix("backup", "acme", "--json").json["sources"]) == {"one", "two"}
    assert kryonix("backup", "acme", "--source", "three").code == 10


def test_a_log_backup_of_files_says_why_not(kryonix: Terminal) -> None:
    kryonix.add()

    assert kryonix("backup", "acme", "--kind", "log").code == 10


def _log(**changed: Any) -> LogReport:
    return replace(
        LogReport(SourceName("db"), ChainId("c"), 1, 2, 3000, 4096, NOON, 1.5, None, ()), **changed
    )


def test_it_is_told_why_an_incremental_backup_is_a_full_one(kryonix: Terminal) -> None:
    kryonix.add()
    report = kryonix("backup", "acme", "--kind", "incremental", "--json").json
    source = report["sources"]["files"]
    assert (source["kind"], source["why"]) == ("incremental", "")
    assert not any("full" in line for line in backup_lines(report))

    source |= {"kind": "full", "why": "the log has a \x1b gap"}
    (told,) = [line for line in backup_lines(report) if "full" in line]
    assert told == "    it is a full backup: the log has a \\x1b gap"


def test_the_moment_that_a_log_leads_to_is_told() -> None:
    answer = log_answer("acme", {"db": _log()})

    assert answer.exit_code == 0
    assert list(answer.lines) == [
        "db: log kept to 2026-11-23T12:00:00+00:00: 2 commits, 3,000 changes, 4.0 KiB in 1 segments"
    ]
    assert isinstance(answer.plain, dict)
    assert answer.plain["sources"]["db"]["restorable"] == "2026-11-23T12:00:00+00:00"


def test_a_log_that_needs_a_full_backup_says_so_and_exits_3() -> None:
    gap = {"gap_from": None, "reason": "slot is gone"}
    reports = {"a": _log(gap=gap, restorable=None), "b": _log(broken=("it rewrote t",))}
    answer = log_answer("acme", reports)

    lines = [str(line) for line in answer.lines]
    assert answer.exit_code == 3
    assert "no moment yet" in lines[0]
    assert lines[1] == "  it has a gap since its beginning: slot is gone"
    assert "it rewrote t" in lines[4]
    assert sum("--kind full" in line for line in lines) == 2


@contextmanager
def _restless(path: Path) -> Iterator[None]:
    """A file that somebody writes to all the time."""
    path.write_bytes(os.urandom(1 << 20) * 8)
    over = threading.Event()

    def write() -> None:
        with path.open("r+b", buffering=0) as file:
            while not over.is_set():
                os.pwrite(file.fileno(), os.urandom(64), 0)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


def test_what_was_left_out_is_named_and_exits_3(kryonix: Terminal) -> None:
    kryonix.add()
    with _restless(kryonix.root / "files" / "restless"):
        said, people = kryonix("backup", "acme", "--json"), kryonix("backup", "acme")

    assert (said.code, people.code) == (3, 3)
    assert said.json["status"] == "incomplete"
    (problem,) = said.json["problems"]
    assert problem["source"] == "files"
    assert problem["path"] == "restless"
    assert problem["reason"]
    assert "files/restless: " in people.out
    rows = kryonix("snapshots", "acme", "--json").json["snapshots"]
    assert [row["status"] for row in rows] == ["incomplete", "incomplete"]
    history = kryonix("catalog", "history", "acme", "--json").json["sessions"]
    assert {row["status"] for row in history} == {"incomplete"}


def test_the_first_problems_are_shown_and_all_are_counted() -> None:
    problems = [{"source": "files", "path": f"p{n}\x1b", "reason": "gone"} for n in range(12)]

    lines = list(problem_lines(problems))

    assert lines[0].startswith("12 entries")
    assert lines[1] == "  files/p0\\x1b: gone"
    assert len(lines) == 12
    assert lines[-1].startswith("  and 2 more")
    assert list(problem_lines([])) == []
