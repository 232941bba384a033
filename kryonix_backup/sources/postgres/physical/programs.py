"""A server's own programs on this machine, and the account that they run as."""

from __future__ import annotations

import os
import pwd
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

from kryonix_backup.errors import ConfigError, RestoreError
from kryonix_backup.sources.postgres.server.programs import VARIABLE, folders, version_of

_NEEDED = ("postgres", "pg_controldata", "pg_verifybackup", "pg_waldump")
_COMBINES = "pg_combinebackup"


class Account(NamedTuple):
    """Whose files a cluster's are; a server refuses to run as root, and to use another's files."""

    uid: int
    gid: int

    @classmethod
    def of(cls, name: str | None, directory: Path) -> Account:
        """
        That of a name, else the owner of a directory that is there, else ``postgres``.

        Whoever is not root can only be himself. Raises RestoreError.
        """
        if os.geteuid():
            return cls(os.geteuid(), os.getegid())
        if name is None and directory.is_dir() and (info := directory.stat()).st_uid:
            return cls(info.st_uid, info.st_gid)
        try:
            found = pwd.getpwnam(name or "postgres")
        except KeyError as error:
            raise RestoreError(
                f"there is no account {name or 'postgres'!r} that the server in {directory} could"
                " run as, and root it must not be",
                f"Name one: --to NAME=pgdata://{directory}?owner=ACCOUNT.",
            ) from error
        return cls(found.pw_uid, found.pw_gid)

    def give(self, path: Path | int) -> None:
        """Make a file or a directory this account's."""
        if not os.geteuid():
            os.chown(path, self.uid, self.gid)


@lru_cache(maxsize=8)
def server_of(major: int, *, combines: bool) -> Path:
    """
    The folder of the programs of a server of that very version; raises ConfigError.

    With ``combines`` the one that puts incremental backups together is among them.
    """
    needed = (*_NEEDED, _COMBINES) if combines else _NEEDED
    found = [
        folder
        for folder in folders()
        if all(os.access(folder / name, os.X_OK) for name in needed)
        and version_of(folder / "postgres") == major
    ]
    if not found:
        raise ConfigError(
            f"PostgreSQL {major}'s own server programs are not installed here, without which its"
            " files cannot be recovered and proved",
            f"Install postgresql-{major} ({', '.join(needed)}), or name their folder in"
            f" {VARIABLE}.",
        )
    return found[-1]


def run(words: list[str | Path], account: Account) -> str:
    """Run a program to its end as an account; what it printed. Raises RestoreError."""
    process = start(words, account, subprocess.PIPE)
    said, _ = process.communicate()
    text = said.decode("utf-8", "replace")
    if process.returncode:
        end = " ".join(text.split())[-1500:]
        raise RestoreError(f"{Path(words[0]).name} failed ({process.returncode}): {end}")
    return text


def start(
    words: list[str | Path], account: Account, output: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start a program as an account, with what it says in one place."""
    as_root = not os.geteuid()
    return subprocess.Popen(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        cwd="/",
        start_new_session=True,  # Ctrl-C is ours to pass on
        umask=0o077,
        user=account.uid if as_root else None,
        group=account.gid if as_root else None,
        extra_groups=[] if as_root else None,
    )
