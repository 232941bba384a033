"""What a full disk, a stranger and a sudden death do to a directory of objects."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from kryonix_backup.model import MIB
from kryonix_backup.storage.filesystem import FilesystemStore
from tests.storage.contract import names


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
