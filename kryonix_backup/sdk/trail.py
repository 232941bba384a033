"""
Writing what a client does into the tenant's audit chain.

What changes something is recorded before it begins and when it has ended, and is not done where
that cannot be recorded. Reading and restoring are recorded too, but go on with a warning where the
store takes no record: a bucket that has become read-only can still be restored from.
"""

from __future__ import annotations

import logging
import os
import pwd
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from kryonix_backup.clock import Clock
from kryonix_backup.errors import AlreadyRunning, KryonixError, RolledBack
from kryonix_backup.maintenance.verify_audit import verify_audit
from kryonix_backup.model import TenantId
from kryonix_backup.repository.audit_bundle import consolidate
from kryonix_backup.repository.audit_record import Deed, Head, Origin
from kryonix_backup.repository.repository import Repository
from kryonix_backup.sdk.anchor import Anchor
from kryonix_backup.settings import home_directory

log = logging.getLogger(__name__)

BACKUP, BACKUP_LOG, FOLLOW = "backup", "backup log", "follow log"
RESTORE, ROLLBACK, VERIFY = "restore", "rollback", "verify"
TENANT_ADD, TENANT_REMOVE = "tenant add", "tenant remove"
SOURCE_PREPARE, SOURCE_RELEASE = "source prepare", "source release"
AUDIT_ACCEPT = "audit accept"
BEGUN, OK = "begun", "ok"
KEY_CHANGES = frozenset(
    f"keys {what}"
    for what in ("settle", "rotate-data", "rotate-archive", "rotate-master", "move", "state",
                 "reseal", "escrow", "recover", "destroy")
)  # fmt: skip

# What must not be done without a record; the rest goes on with a warning.
_CHANGING = {
    BACKUP, BACKUP_LOG, FOLLOW, TENANT_ADD, SOURCE_PREPARE, SOURCE_RELEASE, AUDIT_ACCEPT,
    *KEY_CHANGES,
}  # fmt: skip
_CONSOLIDATE_EVERY = 100

T = TypeVar("T")


def origin_of(env: Mapping[str, str]) -> Origin:
    """Who acts, as the environment and the system say; ``KRYONIX_ACTOR`` names a person."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return Origin(
        actor=env.get("KRYONIX_ACTOR") or user,
        user=user,
        host=socket.gethostname(),
        pid=os.getpid(),
        program=Path(sys.argv[0]).name if sys.argv else "",
        run=env.get("KRYONIX_RUN", ""),
        reason=env.get("KRYONIX_REASON", ""),
    )


class Trail:
    """What one client leaves in the audit chain of its tenant's repository."""

    def __init__(
        self,
        tenant: TenantId,
        env: Mapping[str, str],
        clock: Clock,
        repository: Callable[[], Repository],
    ) -> None:
        self.tenant = tenant
        self.anchor = Anchor(home_directory(env), tenant)
        self._env = env
        self._clock = clock
        self._repository = repository
        self._told: dict[str, str] = {}
        """Why each log could not be followed: it is tried for ever, and told once."""

    # ------------------------------------------------------------------ one record

    def record(self, action: str, result: str = OK, about: str = "") -> None:
        """
        Write a record; ``about`` are ids and names of sources or regions, and no others.

        Raises RolledBack, and for an action that changes something whatever kept it from being
        recorded.
        """
        try:
            self.write(self._repository(), action, result, about)
        except RolledBack:
            raise
        except KryonixError as error:
            if action in _CHANGING:
                raise
            self._warn(action, error)

    def check(self) -> None:
        """Raise RolledBack before long work, where what this machine has seen is not there."""
        repository = self._repository()
        try:
            repository.audit().check(self.seen(repository))
        except RolledBack:
            raise
        except KryonixError as error:
            log.warning("the audit chain of %s: %s", self.tenant, error.message)

    def failed(self, action: str, error: BaseException, about: str = "") -> None:
        """Write that an action has failed; what stands in the way of that is only warned of."""
        result = "Interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
        try:
            self.write(self._repository(), action, result, about)
        except KryonixError as second:
            if type(second) is not type(error):  # else it says the same twice
                self._warn(action, second)

    def write(
        self,
        repository: Repository,
        action: str,
        result: str,
        about: str = "",
    ) -> None:
        """Append to the chain of this repository, and remember the record as seen."""
        book = repository.audit()
        head = book.append(self.deed(action, result, about), self.seen(repository))
        self.remember(repository, head)
        if head.sequence % _CONSOLIDATE_EVERY == 0:
            try:
                consolidate(book)
            except KryonixError as error:
                log.warning("audit records are not put together: %s", error.message)

    def deed(
        self,
        action: str,
        result: str,
        about: str = "",
        *,
        accepts: tuple[tuple[int, int], ...] = (),
    ) -> Deed:
        """What is done now, by whom and from where."""
        return Deed(self._clock.now(), action, about, result, origin_of(self._env), accepts)

    def seen(self, repository: Repository) -> Head | None:
        """The newest record that this machine has seen there; raises RolledBack."""
        return self.anchor.seen(repository.store.address, repository.id, repository.generation())

    def remember(self, repository: Repository, head: Head) -> None:
        """Keep a record as seen; only warns where this machine keeps nothing."""
        try:
            address = repository.store.address
            self.anchor.advance(address, repository.id, head, repository.generation())
        except OSError as error:
            log.warning(
                "what was seen of the audit chain of %s is not kept on this machine, so that a"
                " repository that is set back is not noticed: %s", self.tenant, error,
            )  # fmt: skip

    def _warn(self, action: str, error: KryonixError) -> None:
        log.warning("%s of %s is not in the audit chain: %s", action, self.tenant, error.message)

    def accept(self, reason: str) -> None:
        """
        Go on after what was found, with a record that names it; what was seen before is over.

        Nothing stays of an anchor that speaks of another repository: the operator has looked.
        """
        repository = self._repository()
        book, address = repository.audit(), repository.store.address
        try:
            seen = self.seen(repository)
        except RolledBack:
            seen = None
        found = verify_audit(book, seen, self._clock).findings
        ranges = tuple((each.first, each.last) for each in found if each.first)
        deed = self.deed(AUDIT_ACCEPT, OK)
        deed = replace(deed, origin=replace(deed.origin, reason=reason), accepts=ranges)
        head = book.accept(deed, seen)
        self.anchor.forget(address)
        self.remember(repository, head)

    # ------------------------------------------------------------------ kinds of actions

    def onboarded(self, repositories: Iterable[Repository]) -> None:
        """Record a tenant that was added; what was seen of another repository there is over."""
        for repository in repositories:
            try:
                self.seen(repository)
            except RolledBack:
                self.anchor.forget(repository.store.address)
            self.write(repository, TENANT_ADD, OK)

    @contextmanager
    def changing(self, action: str, about: str = "") -> Iterator[None]:
        """A block that changes something: a record before it and one after."""
        self.record(action, BEGUN, about)
        try:
            yield
        except BaseException as error:
            self.failed(action, error, about)
            raise
        self.record(action, OK, about)

    @contextmanager
    def reading(self, action: str) -> Iterator[Callable[[str], None]]:
        """A block that reads; what it is given writes the record, before anything is shown."""
        try:
            yield partial(self.record, action, OK)
        except GeneratorExit:
            raise  # whoever reads has seen enough
        except BaseException as error:
            self.failed(action, error)
            raise

    @contextmanager
    def following(self, source: str, tell: Callable[[T], None]) -> Iterator[Callable[[T], None]]:
        """
        A block that follows a log: a record once it does and one at its end.

        It is tried for ever: why it cannot be followed is recorded once, until it can.
        """
        begun = False

        def heard(report: T) -> None:
            nonlocal begun
            if not begun:
                self.record(FOLLOW, BEGUN, source)
                self._told.pop(source, None)
            begun = True
            tell(report)

        try:
            yield heard
        except AlreadyRunning as error:
            if begun:
                self.failed(FOLLOW, error, source)
            raise
        except BaseException as error:
            reason = type(error).__name__
            if begun or self._told.get(source) != reason:
                self.failed(FOLLOW, error, source)
            self._told[source] = reason
            raise
        self.record(FOLLOW, OK, source)


def told_first(pieces: Iterable[T], tell: Callable[[str], None], about: str) -> Iterator[T]:
    """The pieces, with a record of it before the first of them is shown."""
    waiting = True
    for piece in pieces:
        if waiting:
            tell(about)
            waiting = False
        yield piece
    if waiting:
        tell(about)
