"""
Restores stopped at random moments, and what must hold after each.

A restore into a new directory is gone on with until it is complete. One over a directory that
holds something else is undone, and then everything is as it was, to the last byte, mode and time,
unless it had come to its end. The undoing is stopped too, and run again.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from glob import glob
from pathlib import Path
from random import Random

from kryonix_backup.errors import Interrupted, RestoreError
from tests.integration import trees
from tests.integration.command import Command, Outcome
from tests.integration.stores import Place, object_sizes, store_of

_FIRST_GUESS_S = 1.0
_UNDOING_STOPPED = 0.5


class Stopping:
    """A tenant acme with one snapshot, and a directory that it is restored into again and again."""

    def __init__(self, work: Path, seed: int, place: Place | None = None) -> None:
        place = place or Place.in_directory(work / "stores")
        self._rng = Random(seed)
        self._work = work
        self._url = place.new()
        self._took = _FIRST_GUESS_S
        self.command = Command.with_key_file(work / "home", **place.environment)
        self.target = work / "target"
        self.moments: Counter[str] = Counter()
        tree = work / "tree"
        trees.grow(tree, self._rng, small=400, large_mib=30)
        words = ["tenant", "add", "acme", "--region", f"primary={self._url}"]
        self.command.run(*words, "--source", f"docs=files://{tree}")
        self.command.run("backup", "acme")
        self._saved = trees.state(tree)

    def resumed(self, by: signal.Signals) -> None:
        """Stop a restore into a new directory, and go on with it, stopped again or not."""
        self._known = self._restores()
        outcome = self._struck(self._words(), by)
        while outcome.code != 0:
            begun = self.begun()
            if not begun:
                assert not self.target.exists(), "nothing is touched before the journal says so"
                self.moments["before it was begun"] += 1
                return
            self.moments["while it ran"] += 1
            again = ["restore", "acme", "--resume", begun[0]]
            moment = self._rng.random()
            outcome = self._struck(again, by) if moment < 0.4 else self.command.run(*again)
        self._assert_is(self._saved)
        shutil.rmtree(self.target)

    def rolled_back(self, by: signal.Signals) -> None:
        """Stop a restore over a directory that holds something else, and undo it."""
        old = self._something_else()
        self._known = self._restores()
        outcome = self._struck([*self._words(), "--overwrite"], by)
        begun = self.begun()
        if outcome.code == 0 or not begun:
            self.moments["before it was begun" if not begun else "after its end"] += 1
            self._assert_is(self._overwritten if outcome.code == 0 else old)
        else:
            undo = ("rollback", "acme", begun[0])
            if self._rng.random() < _UNDOING_STOPPED:
                self.command.struck(self._rng.uniform(0.3, 0.8), *undo, by=by)
            undone = self.command.run(*undo, expect=None)
            assert undone.code in {0, RestoreError.exit_code}, undone
            if undone.code:  # everything was switched over, and what was there is dropped
                self.moments["after the switch"] += 1
                assert "was completed" in undone.message
                self.command.run("restore", "acme", "--resume", begun[0])
            else:
                self.moments["while it ran"] += 1
            self._assert_is(self._overwritten if undone.code else old)
        shutil.rmtree(self.target)

    def interrupted_while_loading(self) -> Outcome:
        """
        A restore that gets SIGINT once it has begun to write.

        Python loses the signal where it comes while an object is being cleared away.
        """
        while True:
            shutil.rmtree(self.target, ignore_errors=True)
            self._known = self._restores()
            process = self.command.start(*self._words())
            while not glob(f"{self.target}/.kryonix-restore-*/tree/*"):
                assert process.poll() is None
            os.killpg(process.pid, signal.SIGINT)
            outcome = self.command.finished(process, *self._words())
            if outcome.code:
                return outcome

    def begun(self) -> list[str]:
        """The restores of this round that have a journal."""
        return sorted(self._restores() - self._known)

    def _restores(self) -> set[str]:
        names = object_sizes(store_of(self._url, self.command), "restores/")
        return {name.split("/")[1] for name in names}

    def _words(self) -> list[str]:
        return ["restore", "acme", "--to", f"docs=files://{self.target}"]

    def _struck(self, words: list[str], by: signal.Signals) -> Outcome:
        """Half of the times at any moment, else once something is being written."""
        process = self.command.start(*words)
        started = time.monotonic()
        if self._rng.random() < 0.4:
            time.sleep(self._rng.uniform(0.3, 1.1) * self._took)
        else:
            ours = f"{self.target}/.kryonix-{self._rng.choice(('restore', 'replaced'))}-*"
            while process.poll() is None and not glob(ours):
                time.sleep(0.001)
            time.sleep(self._rng.uniform(0.0, 0.1))
        if process.poll() is None:
            os.killpg(process.pid, by)
        outcome = self.command.finished(process, *words)
        if outcome.code == 0:
            self._took = time.monotonic() - started
        expected = {0, -by, Interrupted.exit_code}
        assert outcome.code in expected or outcome.starting, outcome
        return outcome

    def _something_else(self) -> dict[str, trees.Seen]:
        """Fill the target with other content under some of the same names; its state."""
        trees.grow(self.target, self._rng, small=200, large_mib=3)
        (self.target / "small/00").chmod(0o500)
        (self.target / "own").mkdir()
        trees.write(self.target / "own/file", 1000, self._rng)
        shutil.rmtree(self.target / "empty")
        (self.target / "empty").symlink_to("/etc/passwd")
        os.utime(self.target, ns=(10**18, 10**18 + 1))
        old = trees.state(self.target)
        kept = {path: seen for path, seen in old.items() if path not in self._saved}
        self._overwritten = {**kept, **self._saved}
        return old

    def _assert_is(self, wanted: dict[str, trees.Seen]) -> None:
        found = trees.state(self.target)
        wrong = trees.differences(found, wanted)
        assert not wrong, [(path, found.get(path), wanted.get(path)) for path in wrong[:5]]
