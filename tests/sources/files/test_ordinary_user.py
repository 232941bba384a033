"""Restores by a user who is not root."""

from __future__ import annotations

import os
from pathlib import Path

from kryonix_backup.model import Entry, EntryKind
from tests.sources.files.engine import (
    Snapshot,
    as_ordinary_user,
    back_up,
    load,
    look_at,
    restore,
    target_of,
    write,
)

META = {"mode": 0o755, "uid": os.geteuid(), "gid": os.getegid(), "mtime": 5}


def test_an_ordinary_user_restores_shut_directories(open_path: Path) -> None:
    def work() -> None:
        top = open_path / "tree"
        os.setxattr(write(top / "shut" / "within" / "file", b"text"), "user.kind", b"x")
        (top / "shut" / "within" / "file").chmod(0o400)
        write(top / "dark" / "file", b"text", 0o440)
        for name, mode in (("shut/within", 0o500), ("shut", 0o555), ("dark", 0o550)):
            (top / name).chmod(mode)
        top.chmod(0o555)
        saved = look_at(top)
        snapshot = back_up(top)

        restore(snapshot, open_path / "fresh")
        assert look_at(open_path / "fresh") == saved

        restoring = target_of(top, overwrite=True)
        load(snapshot, restoring)
        restoring.commit()
        restoring.roll_back()
        assert look_at(top) == saved
        restore(snapshot, top, overwrite=True)
        assert look_at(top) == saved

    as_ordinary_user(work)


def test_an_ordinary_user_may_restore_what_its_mode_shuts_to_everyone(open_path: Path) -> None:
    def work() -> None:
        top = open_path / "tree"
        write(top / "none" / "file", b"text")
        snapshot = back_up(top)
        snapshot.entries = [
            entry._replace(meta={**entry.meta, "mode": 0}) if entry.path else entry
            for entry in snapshot.entries
        ]

        restore(snapshot, open_path / "new")

        assert os.stat(open_path / "new" / "none").st_mode & 0o777 == 0
        os.chmod(open_path / "new" / "none", 0o700)
        assert os.stat(open_path / "new" / "none" / "file").st_mode & 0o777 == 0

    as_ordinary_user(work)


def test_an_ordinary_user_is_told_once_what_only_root_can_do(open_path: Path) -> None:
    def work() -> None:
        alien = {**META, "uid": 1, "gid": 1, "mode": 0o4755}
        device = Entry(b"null", EntryKind.CHARACTER_DEVICE, 0, meta={**alien, "rdev": 259})
        files = [Entry(b"a%d" % n, EntryKind.FILE, 0, meta=alien) for n in range(5)]
        snapshot = Snapshot([*files, device])

        report = restore(snapshot, open_path / "new")

        assert [problem.path for problem in report.problems] == ["null", "a0"]
        assert report.problems[0].reason == "could not be restored: only root can make it"
        assert report.problems[1].reason.endswith("only root may (5 entries)")
        assert os.stat(open_path / "new" / "a0").st_mode & 0o7777 == 0o755

    as_ordinary_user(work)
