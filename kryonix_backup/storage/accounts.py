"""Accounts of this machine for tenants: ``backup_TENANT``, made by the system's own programs."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kryonix_backup.errors import ConfigError
from kryonix_backup.model import TenantId

GROUP = "kryonix_enterprise"
_LONGEST = 32  # useradd's limit, and that of what reads /etc/passwd
_PROGRAMS = "/usr/sbin:/sbin:/usr/bin:/bin"
_TIMEOUT_S = 60.0


class Account(NamedTuple):
    """A tenant's account, and the group of those who look after all tenants' directories."""

    name: str
    uid: int
    gid: int
    operators: int


def account_name(tenant: TenantId) -> str:
    """The tenant's account; raises ConfigError where the name would be too long."""
    name = f"backup_{tenant}"
    if len(name) > _LONGEST:
        raise ConfigError(
            f"the account {name} of tenant {tenant} has {len(name)} characters, and Linux takes"
            f" {_LONGEST} at most",
            f"Use a tenant id of {_LONGEST - len('backup_')} characters, or no account of its own:"
            " the directory is then one of this user alone.",
        )
    return name


def find_account(tenant: TenantId) -> Account | None:
    """The tenant's account, where it is there; raises ConfigError as `account_name` does."""
    try:
        found = pwd.getpwnam(account_name(tenant))
        return Account(found.pw_name, found.pw_uid, found.pw_gid, grp.getgrnam(GROUP).gr_gid)
    except KeyError:
        return None


def make_account(tenant: TenantId) -> Account:
    """
    The tenant's account and the operators' group, made where they are missing.

    It has a group of its own and is in no other: a member of the operators' group could look into
    every tenant's directory. It has no password, no home and no shell. Raises ConfigError where
    this process is not root's, or the system's programs fail.
    """
    name = account_name(tenant)
    if os.geteuid() != 0:
        raise ConfigError(
            f"only root can make the account {name}",
            "Run the command as root once, or leave out --system-user: the directory is then one of"
            " this user alone.",
        )
    _run("groupadd", ["--system", "--force", GROUP])
    if find_account(tenant) is None:
        options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        _run("useradd", [*options, "--shell", "/usr/sbin/nologin", "--", name])
    account = find_account(tenant)
    if account is None or account.uid == 0 or account.gid == account.operators:
        raise ConfigError(
            f"the account {name} is not one for a tenant alone",
            f"Let it be an ordinary account with a group of its own, which is not {GROUP}.",
        )
    return account


def drop_account(tenant: TenantId) -> None:
    """Remove the tenant's account; one that is missing is no error."""
    if find_account(tenant) is not None:
        _run("userdel", ["--", account_name(tenant)])


def may_enter(path: Path, uid: int, gid: int) -> bool:
    """Whether the kernel lets an account, with no further group, list and write a directory."""
    test = _program("test")
    words = [test, "-r", str(path), "-a", "-w", str(path), "-a", "-x", str(path)]
    done = subprocess.run(
        words,
        user=uid,
        group=gid,
        extra_groups=[],
        env={},
        cwd="/",
        timeout=_TIMEOUT_S,
        check=False,
    )
    return done.returncode == 0


def _run(program: str, words: Sequence[str]) -> None:
    done = subprocess.run(
        [_program(program), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={"LC_ALL": "C.UTF-8", "PATH": _PROGRAMS},
        cwd="/",
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise ConfigError(f"{program} {words[-1]} failed: {said or done.returncode}")


def _program(name: str) -> str:
    found = shutil.which(name, path=_PROGRAMS)
    if found is None:
        raise ConfigError(f"the program {name} is not installed", f"Install it ({_PROGRAMS}).")
    return found
