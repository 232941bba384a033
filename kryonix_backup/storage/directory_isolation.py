"""A directory for one tenant alone: of this user, or of an account of the tenant's own."""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from kryonix_backup.errors import NotIsolated, StoreDenied
from kryonix_backup.model import TenantId
from kryonix_backup.settings import RegionSettings
from kryonix_backup.storage.accounts import (
    Account,
    drop_account,
    find_account,
    make_account,
    may_enter,
)
from kryonix_backup.storage.isolation import Isolation
from kryonix_backup.storage.location import Directory

_ALONE, _WITH_OPERATORS = 0o700, 0o750
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NOBODY = 65534
_DIRECTORY, _ACCOUNT, _MODE, _OWNER = "directory", "account", "mode", "owner"


class DirectoryIsolation:
    """One region's directory and, where asked for, the tenant's account that it belongs to."""

    def __init__(
        self, tenant: TenantId, region: RegionSettings, place: Directory, *, system_user: bool
    ) -> None:
        self._tenant, self._region, self._place = tenant, region, place
        self._system_user = system_user
        self._made: list[str] = []
        self._remarks: list[str] = []

    def isolate(self) -> Isolation:
        """
        Make what is missing, and try it; may be run again.

        What fails leaves nothing that was not there before. Raises ConfigError, StoreDenied and
        NotIsolated.
        """
        try:
            account = self._account() if self._system_user else None
            with self._opened() as root:
                self._give(root, account)
                proved = tuple(self._proved(root, account))
        except BaseException:
            self.undo(self._made)
            raise
        owner = pwd.getpwuid(os.stat(self._place.path).st_uid).pw_name
        return Isolation(
            self._region.name,
            "directory",
            self._place.address,
            owner,
            tuple(self._made),
            proved,
            tuple(self._remarks),
        )

    def undo(self, made: Collection[str]) -> None:
        """Unmake what `isolate` has made; a directory that is not empty stays."""
        if _DIRECTORY in made:
            with suppress(OSError):
                os.rmdir(self._place.path)
        if _ACCOUNT in made:
            drop_account(self._tenant)

    def _account(self) -> Account:
        there = find_account(self._tenant)
        account = make_account(self._tenant)
        if there is None:
            self._made.append(_ACCOUNT)
        return account

    @contextmanager
    def _opened(self) -> Iterator[int]:
        path = self._place.path
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir(mode=_ALONE)
                self._made.append(_DIRECTORY)
            descriptor = os.open(path, _FLAGS)
        except OSError as error:
            raise StoreDenied(f"{self._place.address}: the directory: {error.strerror}") from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _give(self, root: int, account: Account | None) -> None:
        """Let the directory, and what is in it, belong to the account, or keep others out of it."""
        status = os.fstat(root)
        if account is None:
            self._close(root, status)
            return
        owner = account.uid, account.operators
        if (status.st_uid, status.st_gid) != owner:
            self._made.append(_OWNER)
            for _, folders, files, here in os.fwalk(".", dir_fd=root, follow_symlinks=False):
                for name in (*folders, *files):
                    os.chown(name, *owner, dir_fd=here, follow_symlinks=False)
            os.fchown(root, *owner)
        if status.st_mode & 0o7777 != _WITH_OPERATORS:
            self._made.append(_MODE)
            os.fchmod(root, _WITH_OPERATORS)

    def _close(self, root: int, status: os.stat_result) -> None:
        account = find_account(self._tenant)
        if account is not None and status.st_uid == account.uid:
            return  # it was given to the tenant's account by an earlier run
        if status.st_uid != os.geteuid():
            self._remarks.append(
                "it belongs to another user of this machine, who can enter it: give it to the user"
                " that runs the backups"
            )
        elif status.st_mode & 0o7777 != _ALONE:
            with suppress(OSError):  # a mount may not know modes; what it is shows below
                os.fchmod(root, _ALONE)
            self._made.append(_MODE)

    def _proved(self, root: int, account: Account | None) -> Iterator[str]:
        """What holds, by the kernel's own word where it can be asked."""
        mode = os.fstat(root).st_mode & 0o7777
        if account is None:
            if mode & 0o077:
                self._remarks.append(f"its mode is {mode:04o}: others can enter it")
            else:
                yield f"its mode is {mode:04o}"
            return
        yield f"its mode is {mode:04o}"
        path = self._place.path
        if not may_enter(path, account.uid, account.gid):
            raise NotIsolated(
                f"{self._place.address}: {account.name} cannot enter its own directory",
                f"Let everybody pass (mode x) through {path.parent} and the directories above it.",
            )
        if may_enter(path, _NOBODY, _NOBODY):
            raise NotIsolated(f"{self._place.address}: everybody can enter it")
        yield f"{account.name} can enter it, and another account cannot"
