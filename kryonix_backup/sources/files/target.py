"""A directory as the target of a restore."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from kryonix_backup.errors import AlreadyRunning, RestoreError
from kryonix_backup.model import Entry, Problem, RestoreId
from kryonix_backup.sources.files.comparing import Comparison
from kryonix_backup.sources.files.folders import (
    Handle,
    look,
    make_beneath,
    open_root,
    remove_tree,
    writable,
)
from kryonix_backup.sources.files.journal import JOURNAL, write_journal
from kryonix_backup.sources.files.kernel import sync_file_system
from kryonix_backup.sources.files.loading import Loader
from kryonix_backup.sources.files.paths import reason_of, restore_error, shown
from kryonix_backup.sources.files.planning import MovePlan, Survey, check_room
from kryonix_backup.sources.files.staging import Places, open_own, write_to
from kryonix_backup.sources.files.switch import Switch, clear_replaced
from kryonix_backup.sources.source import Content, LoadReport

log = logging.getLogger(__name__)

_DONE = b"done"


class FilesTarget:
    """
    The tree below one directory, brought back beside what is there and then moved into place.

    What the moves replace is kept until `finish`, in a directory of this restore's own.
    """

    def __init__(self, directory: bytes, restore: RestoreId, *, overwrite: bool = False) -> None:
        # The parents of a directory that is not there are made, and for that they need names.
        self._directory = os.path.abspath(directory)
        self._places = Places(self._directory, restore)
        self._overwrite = overwrite

    def prepare(self, entries: Iterable[Entry], bytes_needed: int) -> None:
        """Raise WouldOverwrite, TargetFull, UnsafePath or RestoreError if the load cannot work."""
        with self._explained("cannot be restored to"):
            if not os.path.isdir("/proc/self/fd"):
                raise RestoreError("/proc is not there, and links are restored by way of it")
            target = self._places.target()
            staging = None
            if target is not None:
                if self._replaced(target) is not None:
                    return  # the moves were begun: there is nothing to look at before them
                staging = self._places.staged(target)
            count = Survey(self._directory, target, overwrite=self._overwrite).look(entries)
            if staging is None:  # else an earlier try found the room, and has used some of it
                check_room(self._directory, bytes_needed, count)

    def load(self, content: Content) -> LoadReport:
        """Write the entries; raises UnsafePath, TargetFull and RestoreError."""
        with self._explained("cannot be written to"):
            target = self._places.target()
            if target is not None and self._replaced(target) is not None:
                raise RestoreError(
                    f"the restore into {shown(self._directory)} was already being switched to",
                    "Let it finish, or roll it back.",
                )
            resumed = target is not None and self._places.staged(target) is not None
            staging = self._places.make_staging()
            return Loader(staging, resumed=resumed).run(content.items())

    def compare(self, entries: Iterable[Entry]) -> list[Problem]:
        """What was loaded and is not as it should be; what load left out is not told again."""
        with self._explained("cannot be read back"):
            target = self._places.target()
            staging = None if target is None else self._places.staged(target)
            if staging is None:
                raise RestoreError(f"nothing was loaded into {shown(self._directory)}")
            return Comparison(staging).run(entries)

    def commit(self) -> None:
        """Move everything into place; raises WouldOverwrite, AlreadyRunning, RestoreError."""
        with self._explained("cannot be switched to"):
            target = open_root(self._directory)
            with self._locked(target):
                self._look_for_others(target)
                self._switch(target)

    def roll_back(self) -> None:
        """Put back what was there, drop what was loaded; raises AlreadyRunning, RestoreError."""
        with self._explained("cannot be put back as it was"):
            target = self._places.target()
            if target is None:
                return
            with self._locked(target):
                replaced = self._replaced(target)
                if replaced is None:
                    self._drop(target)
                else:
                    self._undo(target, replaced)

    def finish(self) -> None:
        """Remove what the moves replaced; does nothing before `commit`."""
        with self._explained("cannot be tidied up"):
            target = self._places.target()
            replaced = None if target is None else open_own(target, self._places.replaced)
            if target is None or replaced is None:
                return
            if look(replaced.fd, JOURNAL) and not look(replaced.fd, _DONE):
                return
            info = os.fstat(target.fd)
            with writable(target):
                clear_replaced(target, self._places.replaced, replaced, _DONE)
            os.utime(target.fd, ns=(info.st_atime_ns, info.st_mtime_ns))

    # ------------------------------------------------------------------ their steps

    @contextmanager
    def _locked(self, target: Handle) -> Iterator[None]:
        """
        Be the only one to move anything here; raises AlreadyRunning.

        Two restores at once would leave a mixture that neither of them knows of.
        """
        try:
            fcntl.flock(target.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(
                f"another restore is being switched to in {shown(self._directory)}",
                "Wait for it to end, then go on with this one by --resume, or roll it back.",
            ) from error
        except OSError as error:  # not every network file system has locks
            log.info("%s cannot be locked: %s", shown(self._directory), reason_of(error))
            yield
            return
        try:
            yield
        finally:
            fcntl.flock(target.fd, fcntl.LOCK_UN)

    def _look_for_others(self, target: Handle) -> None:
        """Raise RestoreError where another restore was stopped in the middle of its moves."""
        start = self._places.replaced.removesuffix(self._places.restore)
        for name in map(os.fsencode, os.listdir(target.fd)):
            if not name.startswith(start) or name == self._places.replaced:
                continue
            place = open_own(target, name)
            if place is not None and look(place.fd, JOURNAL) and not look(place.fd, _DONE):
                other = shown(name.removeprefix(start))
                raise RestoreError(
                    f"restore {other} was stopped while it was switched to in"
                    f" {shown(self._directory)}",
                    f"Go on with it by --resume {other}, or roll it back, and then restore again.",
                )

    def _switch(self, target: Handle) -> None:
        replaced = self._replaced(target)
        if replaced is not None and look(replaced.fd, _DONE):
            return
        staging = self._places.staged(target)
        if replaced is None:
            replaced = self._plan(target, staging)
        switch = Switch(target, replaced)
        switch.make(staging)
        remove_tree(target.fd, self._places.staging)
        switch.settle_root()
        sync_file_system(target.fd)
        write_to(replaced, _DONE).close()
        os.fsync(replaced.fd)

    def _replaced(self, target: Handle) -> Handle | None:
        """The directory with the journal, open; None as long as no move was made."""
        place = open_own(target, self._places.replaced)
        return place if place is not None and look(place.fd, JOURNAL) else None

    def _plan(self, target: Handle, staging: Handle | None) -> Handle:
        if staging is None:
            raise RestoreError(f"nothing was loaded into {shown(self._directory)}")
        sync_file_system(staging.fd)
        before = self._places.before(target)
        with writable(target):
            replaced = make_beneath(target, self._places.replaced)
        plan = MovePlan(self._directory, target, staging, before, overwrite=self._overwrite)
        try:
            write_journal(replaced, plan.rows())
        except RestoreError:
            remove_tree(target.fd, self._places.replaced)
            raise
        os.fsync(target.fd)
        return replaced

    def _drop(self, target: Handle) -> None:
        """Take away what a load left behind, which changed nothing else."""
        with writable(target):
            remove_tree(target.fd, self._places.replaced)
            before = self._places.undo_staging(target)
        if before.mtime is not None:
            os.utime(target.fd, ns=(os.fstat(target.fd).st_atime_ns, before.mtime))
        _remove_made(before.made)

    def _undo(self, target: Handle, replaced: Handle) -> None:
        switch = Switch(target, replaced)
        begin, root = switch.begun()
        stuck = switch.take_back()
        if stuck:
            first = ", ".join(repr(shown(path)) for path in stuck[:3])
            raise RestoreError(
                f"{len(stuck)} entries of {shown(self._directory)} cannot be put back, because"
                f" something else has their place: {first}",
                f"What was there is in {shown(self._places.replaced)}/tree; take the new entries"
                " away and roll back again.",
            )
        remove_tree(target.fd, self._places.staging)
        switch.restore_root(root)
        with writable(target):
            clear_replaced(target, self._places.replaced, replaced, JOURNAL)
        switch.restore_root(root)  # again: what was just removed shows in its time
        sync_file_system(target.fd)
        _remove_made(begin.made)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise restore_error(error, f"{shown(self._directory)} {what}") from error


def _remove_made(made: list[bytes]) -> None:
    for path in made:
        try:
            os.rmdir(path)
        except OSError:
            return  # somebody has put something there meanwhile
