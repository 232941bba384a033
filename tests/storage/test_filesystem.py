from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from kryonix_backup.errors import (
    KryonixError,
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreUnavailable,
    StoreUnsupported,
)
from kryonix_backup.model import MIB
from kryonix_backup.storage.filesystem import FilesystemStore
from kryonix_backup.storage.store import ObjectStore
from tests.storage.contract import StoreContract, names, raised


class TestFilesystemStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        store = FilesystemStore(tmp_path / "repository")
        store.create()
        return store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    FilesystemStore(tmp_path / "store").create()
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> FilesystemStore:
    return FilesystemStore(root)


def as_nobody(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a process that has no rights beyond those of modes."""
    # After the imports: not everybody may read where Python is installed.
    drop = ""
    if os.geteuid() == 0:
        drop = "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    program = PRELUDE + drop + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


PRELUDE = """
import os, sys
from pathlib import Path
from kryonix_backup.errors import KryonixError
from kryonix_backup.storage.filesystem import FilesystemStore

def told(ask):
    try:
        ask()
    except KryonixError as error:
        print(type(error).__name__)
    else:
        print("fine")
"""


def test_only_the_owner_may_look_whatever_the_umask_is(root: Path) -> None:
    before = os.umask(0)
    try:
        store = FilesystemStore(root / "open")
        store.create()
        store.put("packs/aa/one", b"x")
        os.umask(0o777)
        store.put("packs/bb/two", b"x")
    finally:
        os.umask(before)

    modes = {
        path.relative_to(root).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in (root / "open").rglob("*")
    }
    assert {modes[f"open/{name}"] for name in ("packs/aa/one", "packs/bb/two")} == {0o600}
    assert {modes[f"open/{name}"] for name in ("tmp", "packs", "packs/aa", "packs/bb")} == {0o700}


def test_what_is_not_an_object_is_not_listed(root: Path, store: FilesystemStore) -> None:
    store.put("packs/real", b"x")
    (root / "tmp/half").write_bytes(b"x")
    (root / "packs/.hidden").write_bytes(b"x")
    (root / "packs/Upper").write_bytes(b"x")
    (root / "lost+found").mkdir(mode=0)
    (root / "packs/link").symlink_to(root / "packs/real")
    (root / "linked").symlink_to(root / "packs", target_is_directory=True)
    os.mkfifo(root / "packs/fifo")

    assert names(store) == ["packs/real"]
    assert names(store, "tmp/") == []


def test_a_fifo_under_an_objects_name_does_not_hang(root: Path, store: FilesystemStore) -> None:
    os.mkfifo(root / "fifo")

    with pytest.raises(ObjectMissing, match="not a file"):
        store.get("fifo")


@pytest.mark.parametrize("name", ["packs/one", "packs/aa/one"])
def test_a_write_never_follows_a_link_out(root: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = root / Path(name).parent
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside, target_is_directory=True)

    with pytest.raises((StoreDenied, ObjectMissing)):
        FilesystemStore(root).put(name, b"x")
    assert list(outside.iterdir()) == []


def test_a_scratch_directory_that_is_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "tmp").rmdir()
    (root / "tmp").symlink_to(tmp_path, target_is_directory=True)

    with pytest.raises((StoreDenied, ObjectMissing)):
        FilesystemStore(root).put("a", b"x")


def test_a_missing_directory_is_not_made_by_a_put(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "unmounted")

    assert raised(store, "a") == {
        "put": ObjectMissing,
        "get": ObjectMissing,
        "get_range": ObjectMissing,
        "size": ObjectMissing,
        "list": None,
    }
    with pytest.raises(ObjectMissing, match="the directory does not exist") as caught:
        store.put("a", b"x")
    assert "Mount" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_directories_that_were_removed_are_made_again(root: Path, store: FilesystemStore) -> None:
    store.put("packs/aa/one", b"1")
    (root / "packs/aa/one").unlink()
    (root / "packs/aa").rmdir()
    (root / "tmp").rmdir()

    store.put("packs/aa/two", b"2")

    assert names(store) == ["packs/aa/two"]


def test_a_file_where_a_directory_should_be_is_told(root: Path, store: FilesystemStore) -> None:
    store.put("packs", b"x")

    with pytest.raises(ObjectMissing):
        store.put("packs/one", b"x")
    assert os.listdir(root / "tmp") == []


def test_what_was_abandoned_a_day_ago_is_removed(root: Path) -> None:
    old, young = root / "tmp/old", root / "tmp/young"
    for path, age in ((old, 25 * 3600), (young, 23 * 3600)):
        path.write_bytes(b"half")
        moment = path.stat().st_mtime - age
        os.utime(path, (moment, moment))

    FilesystemStore(root).put("a", b"x")

    assert os.listdir(root / "tmp") == ["young"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EACCES, StoreDenied),
        (errno.EPERM, StoreDenied),
        (errno.EROFS, StoreDenied),
        (errno.EIO, StoreUnavailable),
        (errno.ESTALE, StoreUnavailable),
        (errno.ETIMEDOUT, StoreUnavailable),
        (errno.EMFILE, StoreUnavailable),
        (errno.EINVAL, StoreError),
    ],
)
def test_what_the_system_says_is_translated_and_leaves_nothing(
    store: FilesystemStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[KryonixError],
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    store.put("packs/before", b"x")
    for call in ("write", "fsync", "fchmod"):
        with monkeypatch.context() as patched:
            patched.setattr(os, call, refuse)
            with pytest.raises(kind) as caught:
                store.put("packs/one", b"body")
        assert type(caught.value) is kind
        assert "packs/one" in str(caught.value)
        assert str(root) in str(caught.value)
        assert os.listdir(root / "tmp") == []
    for call, ask in (("pread", store.get), ("open", store.size)):
        with monkeypatch.context() as patched:
            patched.setattr(os, call, refuse)
            with pytest.raises(kind):
                ask("packs/before")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV])
def test_a_file_system_without_links_is_refused(
    store: FilesystemStore, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)

    for ask in (lambda: store.put("a", b"x"), store.create):
        with pytest.raises(StoreUnsupported, match="no hard links"):
            ask()
    assert os.listdir(root / "tmp") == []
    assert names(store) == []


def test_a_file_system_whose_links_overwrite_is_refused(
    store: FilesystemStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", lambda *_, **__: None)

    with pytest.raises(StoreUnsupported, match="over existing names"):
        store.create()
    assert os.listdir(root / "tmp") == []


def test_short_writes_and_reads_are_gone_on_with(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, pread = os.write, os.pread
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 4), at))

    store.put("a", b"0123456789")

    assert store.get("a") == b"0123456789"
    assert store.get_range("a", 1, 8) == b"12345678"
    assert store.get_range("a", 5, 80) == b"56789"


def test_a_file_that_vanishes_while_it_is_listed_is_left_out(
    root: Path, store: FilesystemStore
) -> None:
    for name in ("a", "b", "c"):
        store.put(name, b"x")

    listing = store.list("")
    first = next(listing).name
    for name in {"a", "b", "c"} - {first}:
        (root / name).unlink()

    assert list(listing) == []


def test_a_full_disk_is_told_and_leaves_nothing(root: Path, store: FilesystemStore) -> None:
    """The limit of a file's size stands for a full disk, so that it needs no mount and no root."""
    program = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    store = FilesystemStore(Path(sys.argv[1]))
    store.put("small", b"x" * 1000)
    told(lambda: store.put("large", b"x" * (2 << 20)))
    """
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program), str(root)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["StoreFull"]
    assert names(store) == ["small"]
    assert os.listdir(root / "tmp") == []


@pytest.fixture
def readable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that another user can reach."""
    path = Path(os.path.realpath(tmp_path_factory.mktemp("shared")))
    opened = []
    for folder in (path, *path.parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH and folder.stat().st_uid == os.geteuid():
            opened.append((folder, stat.S_IMODE(mode)))
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
    yield path
    for folder, mode in opened:
        folder.chmod(mode)


def test_another_user_is_denied(readable: Path) -> None:
    store = FilesystemStore(readable / "store")
    store.create()
    store.put("packs/one", b"x")
    (readable / "store").chmod(0)

    done = as_nobody(
        """
        store = FilesystemStore(Path(sys.argv[1]))
        told(lambda: store.put("packs/two", b"x"))
        told(lambda: store.get("packs/one"))
        told(lambda: store.size("packs/one"))
        told(lambda: list(store.list("")))
        told(store.create)
        """,
        readable / "store",
    )
    (readable / "store").chmod(0o700)

    assert done.stdout.split() == ["StoreDenied"] * 5, done.stderr
    assert names(store) == ["packs/one"]


def test_a_directory_that_may_only_be_read_serves_reads(readable: Path) -> None:
    root = readable / "store"
    store = FilesystemStore(root)
    store.create()
    store.put("packs/one", b"body")
    for path in (root, *root.rglob("*")):
        path.chmod(0o444 if path.is_file() else 0o555)

    done = as_nobody(
        """
        store = FilesystemStore(Path(sys.argv[1]))
        told(lambda: store.put("packs/two", b"x"))
        print(store.get("packs/one").decode(), *(info.name for info in store.list("")))
        """,
        root,
    )

    assert done.stdout.split() == ["StoreDenied", "body", "packs/one"], done.stderr


@pytest.mark.parametrize("stop_at", ["write", "fsync", "link"])
def test_a_writer_that_is_killed_leaves_no_object(
    root: Path, store: FilesystemStore, stop_at: str
) -> None:
    """The writer kills itself where the name of the call says, the first time it gets there."""
    program = f"""
    import os, signal, sys
    from pathlib import Path
    from kryonix_backup.storage.filesystem import FilesystemStore
    store = FilesystemStore(Path(sys.argv[1]))
    store.put("packs/whole", b"w" * 1000)
    call = os.{stop_at}
    def killed(*arguments, **options):
        if "{stop_at}" == "write":
            call(arguments[0], arguments[1][: 1 << 20])
        os.kill(os.getpid(), signal.SIGKILL)
    os.{stop_at} = killed
    store.put("packs/half", b"h" * (16 << 20))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(root)],
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(os.listdir(root / "tmp")) == 1
    assert names(store) == ["packs/whole"]
    assert store.get("packs/whole") == b"w" * 1000
    store.put("packs/half", b"again")
    assert store.get("packs/half") == b"again"


def test_a_writer_killed_at_any_moment_leaves_whole_objects_only(
    root: Path, store: FilesystemStore
) -> None:
    program = """
    import sys
    from pathlib import Path
    from kryonix_backup.storage.filesystem import FilesystemStore
    store = FilesystemStore(Path(sys.argv[1]))
    for number in range(1000):
        store.put(f"packs/{sys.argv[2]}/{number}", b"%d" % (number % 10) * (1 << 20))
        print(number, flush=True)
    """
    for run in range(5):
        command = [sys.executable, "-c", textwrap.dedent(program), str(root), str(run)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(run + 1):
                process.stdout.readline()
            process.kill()
            told = [int(line) for line in process.stdout.read().split()]

        listed = {info.name: info.size for info in store.list(f"packs/{run}/")}

        assert len(listed) >= len(told) + run + 1
        assert set(listed.values()) == {MIB}
    assert len(os.listdir(root / "tmp")) <= 5


def test_no_descriptor_is_left_open(root: Path, store: FilesystemStore) -> None:
    before = len(os.listdir("/proc/self/fd"))
    store.put("packs/aa/one", b"x")
    for ask in (
        lambda: store.put("packs/aa/one", b"x"),
        lambda: store.get("none"),
        lambda: store.get("packs/aa"),
        lambda: FilesystemStore(root / "none").put("a", b""),
    ):
        with pytest.raises((ObjectExists, ObjectMissing)):
            ask()
    store.create()
    list(store.list(""))

    assert len(os.listdir("/proc/self/fd")) == before
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before
