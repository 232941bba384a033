"""
Backups killed with SIGKILL at random moments, and what must hold after each.

A round edits a small tree, kills a backup of it at a moment between its first and its last, and
then holds the repository to account: every snapshot that was ever published verifies to the last
byte, the next backup succeeds without storing again what the killed one had stored, and verifies.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.integration import trees
from tests.integration.command import Command, Outcome
from tests.integration.stores import (
    Place,
    bytes_stored_twice,
    object_sizes,
    repository_of,
    store_of,
)

BEFORE, PACKS, INDEX, SNAPSHOT, ENDED = (
    "before anything was stored",
    "packs stored, none in the index",
    "a part in the index, no snapshot",
    "after the snapshot was published",
    "(not counted: it had ended already)",
)
_FRESH = 0.15  # the share of rounds that begin with a new repository
_RESTORE_EVERY = 10
_LEAVING_S = 0.06  # what Python takes to end
_FIRST_GUESS_S = 1.2
# Some kills come at a random moment of the whole run, of which much is the start of Python; some
# within the work at its end, as long as it took the last time; the others wait for the store to
# show that the work has begun.
_AT_ANY_TIME, _AT_WORK = 0.2, 0.6
_OBJECTS_AWAITED = 3


@dataclass
class Tally:
    """What a series of rounds came to."""

    rounds: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    onboardings: int = 0
    restored: int = 0
    verified: int = 0
    kept_bytes: int = 0

    def rows(self) -> list[tuple[str, int]]:
        """The figures with what they are of."""
        return [
            ("backups killed", self.rounds),
            *((moment, self.moments[moment]) for moment in (BEFORE, PACKS, INDEX, SNAPSHOT)),
            (ENDED, self.moments[ENDED]),
            *((f"of a {kind} backup", count) for kind, count in sorted(self.kinds.items())),
            ("of a 'tenant add' before the first backup", self.onboardings),
            ("snapshots verified with --level data", self.verified),
            ("snapshots restored and compared", self.restored),
            ("MiB that killed backups had stored and nobody stored again", self.kept_bytes >> 20),
        ]


class Killing:
    """One machine, its tenant acme, and one repository after the other at a place."""

    def __init__(self, place: Place, work: Path, seed: int) -> None:
        self._place = place
        self._work = work
        self._rng = Random(seed)
        self._command = Command.with_key_file(work / "home", **place.environment)
        self._took: dict[str, tuple[float, float]] = {}
        self._states: dict[str, dict[str, trees.Seen]] = {}
        self._url = ""
        self.tally = Tally()

    def round(self) -> None:
        """One kill, and everything that must hold after it."""
        first = not self._url or self._rng.random() < _FRESH
        if first:
            self._start_over()
        else:
            trees.edit(self._work / "tree", self._rng)
        kind = self._rng.choice(("full", "incremental"))
        label = f"first {kind}" if first else f"later {kind}"
        while self._kill_a_backup(label, kind) == ENDED:
            trees.edit(self._work / "tree", self._rng)  # it was too late: once more
        self._verify()
        self._complete(label, kind)
        self._verify()
        self.tally.rounds += 1
        if self.tally.rounds % _RESTORE_EVERY == 0:
            self._restore()

    # ------------------------------------------------------------------ one round's steps

    def _start_over(self) -> None:
        """A new tree and a new repository, whose making is killed half of the times."""
        shutil.rmtree(self._work / "tree", ignore_errors=True)
        trees.grow(self._work / "tree", self._rng)
        self._command.run("tenant", "remove", "acme", expect=None)
        self._states.clear()
        self._url = self._place.new()
        words = ["tenant", "add", "acme", "--region", f"primary={self._url}"]
        words += ["--source", f"docs=files://{self._work / 'tree'}"]
        if self._rng.random() < 0.5:
            self.tally.onboardings += 1
            moment = self._moment("add", 0.3)
            if self._command.struck(moment, *words).code == 0:
                return
        listed = self._command.report("tenant", "list")["tenants"]
        if not listed:
            self._command.run(*words)

    def _kill_a_backup(self, label: str, kind: str) -> str:
        store = store_of(self._url, self._command)
        before = object_sizes(store)
        words = ["backup", "acme", "--kind", kind, "--json"]
        how = self._rng.random()
        if how < _AT_ANY_TIME:
            outcome = self._command.struck(self._moment(label, 0.25), *words)
        elif how < _AT_WORK:
            outcome = self._command.struck(self._moment_of_work(label), *words)
        else:
            outcome = self._kill_when_storing(len(before), words)
        after = object_sizes(store)
        assert before.items() <= after.items(), "a killed backup changed what was there"
        new = {name: size for name, size in after.items() if name not in before}
        where = _moment_of(outcome, new)
        self.tally.moments[where] += 1
        self.tally.kinds[label] += where != ENDED
        if where in (PACKS, INDEX):
            self.tally.kept_bytes += sum(new[name] for name in new if name.startswith("packs/"))
        if where in (SNAPSHOT, ENDED):
            self._remember(next(name for name in new if name.startswith("snapshots/"))[10:])
        return where

    def _kill_when_storing(self, before: int, words: list[str]) -> Outcome:
        """Kill it a few milliseconds after one of its first objects is in the store."""
        store = store_of(self._url, self._command)
        awaited = before + self._rng.randint(1, _OBJECTS_AWAITED)
        process = self._command.start(*words)
        while process.poll() is None and len(object_sizes(store)) < awaited:
            time.sleep(0.002)
        time.sleep(self._rng.uniform(0.0, 0.01))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        return self._command.finished(process, *words)

    def _moment(self, label: str, earliest: float) -> float:
        took, _ = self._took.get(label, (_FIRST_GUESS_S, 0.0))
        return self._rng.uniform(earliest, 1.0) * took

    def _moment_of_work(self, label: str) -> float:
        took, work = self._took.get(label, (_FIRST_GUESS_S, _FIRST_GUESS_S / 2))
        return max(0.0, took - _LEAVING_S - self._rng.random() * work)

    def _complete(self, label: str, kind: str) -> None:
        started = time.monotonic()
        report = self._command.report("backup", "acme", "--kind", kind)
        self._took[label] = (time.monotonic() - started, report["duration_s"])
        assert report["status"] == "complete", report
        self._remember(report["snapshot"])
        twice = bytes_stored_twice(repository_of(self._url, self._command))
        assert twice == 0, f"{twice} bytes that a killed backup had stored were stored again"

    def _remember(self, snapshot: str) -> None:
        self._states[snapshot] = trees.state(self._work / "tree")

    def _verify(self) -> None:
        report = self._command.report("verify", "acme", "--level", "data")
        assert report["status"] == "ok", report
        listed = repository_of(self._url, self._command).snapshot_ids()
        assert listed == sorted(self._states), "what was published is still there"
        assert report["snapshots"] == len(self._states)
        self.tally.verified += report["snapshots"]

    def _restore(self) -> None:
        """The latest snapshot and any other one, held against the trees they were made of."""
        for snapshot in (max(self._states), self._rng.choice(sorted(self._states))):
            target = self._work / "restored"
            self._command.run(
                "restore", "acme", "--snapshot", snapshot, "--to", f"docs=files://{target}"
            )
            assert not trees.differences(trees.state(target), self._states[snapshot])
            shutil.rmtree(target)
            self.tally.restored += 1


def _moment_of(outcome: Outcome, new: dict[str, int]) -> str:
    """How far the killed run had come, by what it left."""
    if outcome.code >= 0:
        assert outcome.code == 0, outcome
        return ENDED
    for prefix, moment in (("snapshots/", SNAPSHOT), ("index/", INDEX), ("packs/", PACKS)):
        if any(name.startswith(prefix) for name in new):
            return moment
    return BEFORE


def run(rounds: int, place: Place, seed: int, work: Path) -> Tally:
    """So many rounds at a place; raises AssertionError at the first thing that does not hold."""
    killing = Killing(place, work, seed)
    for _ in range(rounds):
        killing.round()
    return killing.tally
