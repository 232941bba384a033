"""A run leaves its record whole, and never fails because of it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from kryonix_backup.catalog.outbox import Outbox
from tests.catalog.conftest import MakeRun, MakeSnapshot


def test_a_record_waits_until_it_is_discarded(
    outbox: Outbox, make_run: MakeRun, make_snapshot: MakeSnapshot
) -> None:
    outbox.put(make_run(), make_snapshot())

    for _ in range(2):  # taking it does not take it away
        (letter,) = outbox.letters()
        assert (letter.run, letter.snapshot) == (make_run(), make_snapshot())
    outbox.discard(letter)
    outbox.discard(letter)  # as a second process would
    assert list(outbox.letters()) == []


def test_two_records_of_one_run_do_not_meet(outbox: Outbox, make_run: MakeRun) -> None:
    outbox.put(make_run(status="failed"))
    outbox.put(make_run(status="complete"))

    assert sorted(letter.run.status for letter in outbox.letters()) == ["complete", "failed"]


def test_only_the_owner_can_read_it(outbox: Outbox, make_run: MakeRun, tmp_path: Path) -> None:
    outbox.put(make_run())

    (path,) = (tmp_path / "outbox").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_outbox_that_cannot_be_written_stops_nothing(
    tmp_path: Path, make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a directory")
    outbox = Outbox(tmp_path / "file" / "outbox")

    outbox.put(make_run())

    assert [record.message for record in caplog.records] == ["run not recorded"]
    assert list(outbox.letters()) == []


@pytest.mark.parametrize("body", ["", "{", "[]", "{}", '{"format": 1, "run": {}}', "\xff"])
def test_what_is_no_record_is_set_aside(outbox: Outbox, tmp_path: Path, body: str) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "r.json").write_bytes(body.encode("latin-1"))

    assert list(outbox.letters()) == []
    assert [path.name for path in (tmp_path / "outbox").iterdir()] == ["r.bad"]


def test_a_record_of_a_later_version_is_left_for_it(
    outbox: Outbox, tmp_path: Path, make_run: MakeRun
) -> None:
    outbox.put(make_run())
    (path,) = (tmp_path / "outbox").iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))

    assert list(outbox.letters()) == []
    assert path.exists()


def test_half_a_record_is_never_seen(outbox: Outbox, tmp_path: Path) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "r1.part").write_text('{"format": 1, "ru')

    assert list(outbox.letters()) == []
