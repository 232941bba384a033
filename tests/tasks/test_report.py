from __future__ import annotations

from dataclasses import replace
from typing import Any

from kryonix_backup.model import SourceName
from kryonix_backup.sdk.client import SourceResult
from tasks.report import (
    backup_line,
    backup_table,
    backup_text,
    in_words,
    plan_table,
    restore_line,
    restore_table,
    restore_text,
    source_line,
)

FIGURES: dict[str, Any] = {
    "bytes_total": 4096, "bytes_read": 4096, "bytes_new": 2048, "bytes_stored": 1024,
    "chunks": 4, "chunks_new": 2, "entries": 7, "entries_unchanged": 1, "duration_s": 0.5,
}  # fmt: skip
BACKUP: dict[str, Any] = {
    "snapshot": "20261123t214005z-00", "tenant": "acme", "kind": "full", "status": "incomplete",
    **FIGURES,
    "problems": [{"source": "documents", "path": "a`b\nc", "reason": "permission denied"}],
    "sources": {"documents": {**FIGURES, "problems": 1, "url": "files:///d"}},
}  # fmt: skip
RESTORE: dict[str, Any] = {
    "restore": "20261123t214005z-01", "tenant": "acme", "snapshot": "20261123t214005z-00",
    "status": "degraded", "bytes": 4096, "duration_s": 1.5,
    "validation": {"status": "done", "problems": []},
    "phases": [{"name": "file_storage_restore", "status": "failed", "bytes": 4096,
                "duration_s": 1.0, "tasks": [{"name": "restore documents"}],
                "problems": [{"path": "x", "reason": "full"}]}],
    "problems": [{"path": "x", "reason": "full"}] * 101,
}  # fmt: skip


def test_the_table_has_a_row_for_each_source_and_one_for_all() -> None:
    rows = backup_table(BACKUP)

    assert [row["Source"] for row in rows] == ["documents", "total"]
    assert rows[0] == {
        "Source": "documents", "Entries": 7, "Unchanged": 1, "Size": "4.0 KiB",
        "Read": "4.0 KiB", "New": "2.0 KiB", "Stored": "1.0 KiB", "Deduplicated": "2.0x",
        "Compressed": "2.0x", "Took": "0.5 s", "Problems": 1,
    }  # fmt: skip


def test_the_state_names_the_count_of_problems() -> None:
    assert "1 entries could not be saved" in backup_line(BACKUP)
    assert "entries" not in backup_line({**BACKUP, "problems": []})
    assert "101 problems" in restore_line(RESTORE)


def test_the_state_of_a_source_says_why_it_is_a_full_backup() -> None:
    position = {"log": "7/8", "at": 1, "time": "2026-11-23T12:00:00+00:00"}
    result = SourceResult(
        SourceName("db"), "postgresql://h/db", (), position, 1, 0, 2048, 2048, 0, 1024, 1, 1, 0.5,
        (), why="the log has a gap",
    )  # fmt: skip

    told = "2.0 KiB read, 1.0 KiB stored; a full backup, because the log has a gap"
    assert source_line(result) == told
    assert source_line(replace(result, why="")) == "2.0 KiB read, 1.0 KiB stored"


def test_a_files_name_cannot_break_out_of_the_text() -> None:
    text = backup_text(BACKUP)

    assert "- `a'b c`: permission denied" in text
    assert "kryonix flow restore acme snapshot=20261123t214005z-00" in text


def test_facts_of_any_depth_are_words() -> None:
    facts = {
        "residency": [],
        "keep": {"daily": 7, "weekly": 4},
        "kinds": ["a", "b"],
        "key_store": None,
    }

    assert in_words(facts) == (
        "residency: none; keep: daily 7, weekly 4; kinds: a, b; key store: none"
    )


def test_a_restore_is_told_phase_by_phase() -> None:
    assert restore_table(RESTORE) == [
        {"Phase": "file_storage_restore", "Status": "failed", "Restored": "4.0 KiB",
         "Took": "1.0 s", "Tasks": "restore documents", "Problems": 1}
    ]  # fmt: skip
    assert "kryonix snapshots acme" in restore_text(RESTORE)
    assert "- and 1 more" in restore_text(RESTORE)


def test_a_plan_has_a_row_for_each_source() -> None:
    step = {"phase": "file_storage_restore", "source": "d", "target": "files:///r",
            "entries": 3, "bytes": 2048}  # fmt: skip

    assert plan_table({"steps": [step]}) == [
        {"Phase": "file_storage_restore", "Source": "d", "To": "files:///r",
         "Entries": 3, "Size": "2.0 KiB"}
    ]  # fmt: skip
