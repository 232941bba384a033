from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kryonix_backup.errors import RestoreError, TargetFull, UnsafePath, WouldOverwrite
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


def test_every_kind_and_all_metadata_come_back(tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(tree)

    report = restore(snapshot, tmp_path / "new" / "place")

    assert snapshot.problems == []
    assert report.problems == ()
    assert report.entries == len(snapshot.entries)
    assert look_at(tmp_path / "new" / "place") == look_at(tree)


def test_nothing_of_ours_stays_behind(tree: Path, tmp_path: Path) -> None:
    before = os.listdir(tree)

    restore(back_up(tree), tree, overwrite=True)

    assert sorted(os.listdir(tree)) == sorted(before)


def test_an_existing_directory_takes_in_entries_and_gets_the_saved_metadata(
    tree: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    mine = write(target / "docs" / "mine", b"was here")
    snapshot = back_up(tree)

    restore(snapshot, target)

    found = look_at(target)
    assert found.pop(b"docs/mine")[4] == b"was here"
    assert mine.exists()
    assert found == look_at(tree)


def test_a_restore_in_place_brings_back_the_old_state(tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(tree)
    saved = look_at(tree)
    write(tree / "docs" / "deep" / "letter", b"changed")
    (tree / "docs!").unlink()
    (tree / "link").unlink()
    (tree / "link").mkdir()
    write(tree / "link" / "inner")

    restore(snapshot, tree, overwrite=True)

    assert look_at(tree) == saved


def test_roll_back_after_commit_puts_everything_back(tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(tree)
    target = tmp_path / "target"
    write(target / "docs" / "deep" / "letter", b"mine", 0o640)
    write(target / "link" / "inner", b"where a link will be")
    os.setxattr(target / "docs", "user.kind", b"mine")
    os.setxattr(target / "docs", "user.more", b"mine")
    os.utime(target / "docs", ns=(7, 7))
    os.utime(target, ns=(9, 9))
    before = look_at(target)
    restoring = target_of(target, overwrite=True)
    load(snapshot, restoring)

    restoring.commit()
    between = look_at(target)
    restoring.roll_back()

    assert between.keys() >= look_at(tree).keys()
    assert look_at(target) == before
    restoring.roll_back()
    assert look_at(target) == before


def test_roll_back_before_commit_drops_what_was_loaded(tree: Path, tmp_path: Path) -> None:
    write(tmp_path / "target" / "mine")
    before = look_at(tmp_path / "target")
    restoring = target_of(tmp_path / "target")
    load(back_up(tree), restoring)

    restoring.roll_back()

    assert look_at(tmp_path / "target") == before


def test_roll_back_takes_away_the_directories_made_for_the_target(
    tree: Path, tmp_path: Path
) -> None:
    restoring = target_of(tmp_path / "a" / "b" / "c")
    load(back_up(tree), restoring)
    restoring.commit()

    restoring.roll_back()

    assert not (tmp_path / "a").exists()
    restoring.roll_back()
    restoring.finish()


def test_commit_and_finish_may_be_run_again(tree: Path, tmp_path: Path) -> None:
    restoring = target_of(tmp_path / "target")
    load(back_up(tree), restoring)

    for _ in range(2):
        restoring.commit()
        assert look_at(tmp_path / "target").keys() > look_at(tree).keys()
    for _ in range(2):
        restoring.finish()
        assert look_at(tmp_path / "target") == look_at(tree)
    restoring.roll_back()
    assert look_at(tmp_path / "target") == look_at(tree)


def test_after_the_switch_was_begun_nothing_is_loaded_again(tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(tree)
    restoring = target_of(tmp_path / "target")
    load(snapshot, restoring)
    restoring.commit()

    restoring.prepare(snapshot.entries, 0)
    with pytest.raises(RestoreError, match="already being switched to"):
        restoring.load(snapshot.items())


def test_a_switch_needs_something_loaded(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="nothing was loaded"):
        target_of(tmp_path).commit()
    with pytest.raises(RestoreError, match="nothing was loaded"):
        target_of(tmp_path).compare([])


def test_nothing_is_overwritten_unless_asked(tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(tree)
    target = tmp_path / "target"
    for name in ("plain", "empty", "docs!"):
        write(target / name, b"mine")
    before = look_at(target)

    with pytest.raises(WouldOverwrite, match=r"'docs!', 'empty', 'plain'$"):
        target_of(target).prepare(snapshot.entries, 0)

    restoring = target_of(target)
    restoring.load(snapshot.items())
    with pytest.raises(WouldOverwrite):
        restoring.commit()
    restoring.roll_back()
    assert look_at(target) == before


def test_many_conflicts_are_counted(tmp_path: Path) -> None:
    for number in range(9):
        write(tmp_path / "tree" / f"f{number}")
    snapshot = back_up(tmp_path / "tree")

    with pytest.raises(WouldOverwrite, match=r"'f0', 'f1', 'f2' and 6 more"):
        target_of(tmp_path / "tree").prepare(snapshot.entries, 0)


def test_prepare_makes_nothing(tree: Path, tmp_path: Path) -> None:
    target_of(tmp_path / "a" / "b").prepare(back_up(tree).entries, 1000)

    assert not (tmp_path / "a").exists()


def test_a_full_target_is_noticed_first(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetFull, match="MiB left"):
        target_of(tmp_path / "a").prepare(back_up(tree).entries, 1 << 60)


@pytest.mark.parametrize(
    "path", [b"../up", b"a/../../up", b"/etc/x", b"a//b", b"a/", b".", b"a/./b", b"..", b"a\0b"]
)
def test_hostile_paths_are_refused(tmp_path: Path, path: bytes) -> None:
    entry = Entry(path, EntryKind.FILE, 0, meta=META)
    restoring = target_of(tmp_path / "target")

    with pytest.raises(UnsafePath):
        restoring.prepare([entry], 0)
    with pytest.raises(UnsafePath):
        restoring.load([(entry, iter([b"x"]))])

    restoring.roll_back()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", [EntryKind.FILE, EntryKind.HARDLINK, EntryKind.DIRECTORY])
def test_a_link_in_the_snapshot_leads_nowhere(tmp_path: Path, kind: EntryKind) -> None:
    outside = write(tmp_path / "outside" / "secret", b"secret").parent
    link = Entry(b"a", EntryKind.SYMLINK, 0, meta={**META, "target": os.fsencode(outside)})
    below = Entry(b"a/new", kind, 0, meta={**META, "target": b"a/secret"})
    restoring = target_of(tmp_path / "target")

    with pytest.raises(UnsafePath):
        restoring.load([(link, iter(())), (below, iter([b"x"]))])

    restoring.roll_back()
    assert os.listdir(outside) == ["secret"]
    assert os.stat(outside / "secret").st_nlink == 1


@pytest.mark.parametrize("target", [b"../outside", b"/etc/passwd", b"l/../../outside"])
def test_a_hard_link_stays_in_the_tree(tmp_path: Path, target: bytes) -> None:
    write(tmp_path / "outside")
    entry = Entry(b"name", EntryKind.HARDLINK, 0, meta={**META, "target": target})
    restoring = target_of(tmp_path / "target")

    with pytest.raises(UnsafePath):
        restoring.prepare([entry], 0)
    with pytest.raises(UnsafePath):
        restoring.load([(entry, iter(()))])


def test_a_link_in_place_of_a_directory_is_not_followed(tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(tree)
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "docs").symlink_to(outside)

    with pytest.raises(WouldOverwrite, match="docs"):
        target_of(target).prepare(snapshot.entries, 0)
    restore(snapshot, target, overwrite=True)

    assert os.listdir(outside) == []
    assert look_at(target) == look_at(tree)


def test_a_link_put_into_the_staging_tree_is_not_followed(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "target"
    snapshot = back_up(tree)

    def swapping():
        for entry, pieces in snapshot.items():
            if entry.path == b"docs/deep":
                staged = next(target.glob(".kryonix-restore-*")) / "tree" / "docs"
                staged.rename(tmp_path / "aside")
                staged.symlink_to(outside)
            yield entry, pieces

    restoring = target_of(target)
    with pytest.raises(UnsafePath, match="a link or a file"):
        restoring.load(swapping())

    restoring.roll_back()
    assert os.listdir(outside) == []
    assert not target.exists()


def test_a_directory_of_ours_that_is_a_link_is_refused(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    snapshot = back_up(tree)
    restoring = target_of(target)
    name = next(iter(restoring._places.all()))
    (target / os.fsdecode(name)).symlink_to(tmp_path)

    with pytest.raises(UnsafePath, match="not made by this restore"):
        restoring.load(snapshot.items())


def test_an_entry_that_appears_after_the_load_is_not_replaced(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    restoring = target_of(target)
    load(back_up(tree), restoring)
    write(target / "plain", b"just now")

    with pytest.raises(WouldOverwrite, match="plain"):
        restoring.commit()

    restoring.roll_back()
    assert (target / "plain").read_bytes() == b"just now"
    assert os.listdir(target) == ["plain"]


def test_a_file_in_place_of_the_target_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "file")

    with pytest.raises(UnsafePath, match="a link or a file"):
        target_of(tmp_path / "file").prepare([], 0)


def test_an_ordinary_user_restores_shut_directories(open_path: Path) -> None:
    def work() -> None:
        top = open_path / "tree"
        write(top / "shut" / "within" / "file", b"text", 0o400)
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


names = st.binary(min_size=1, max_size=6).filter(
    lambda name: name not in (b".", b"..") and not set(name) & set(b"/\0")
)
contents = st.binary(max_size=40)
kinds = st.one_of(
    contents,
    st.deferred(lambda: st.dictionaries(names, kinds, max_size=4)),
    st.tuples(names),
)


def _make(place: bytes, what: object) -> None:
    if isinstance(what, dict):
        os.mkdir(place)
        for name, inner in what.items():
            _make(place + b"/" + name, inner)
    elif isinstance(what, bytes):
        with open(place, "wb") as file:
            file.write(what)
    else:
        os.symlink(what[0], place)


@given(tree=st.dictionaries(names, kinds, max_size=6))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_comes_back(tree: dict[bytes, object], tmp_path_factory) -> None:
    place = tmp_path_factory.mktemp("any")
    _make(os.fsencode(place / "tree"), tree)

    snapshot = back_up(place / "tree")
    again = back_up(place / "tree", snapshot)
    restore(again, place / "back")

    assert again.read == []
    assert look_at(place / "back") == look_at(place / "tree")
