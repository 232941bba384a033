"""
The `kryonix` command as its users run it: a process of its own, a home of its own.

Whatever a run says is held to what holds for every run: no secret in it, no traceback, and after
a failure one line that says what happened and one that says what to do.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

KRYONIX = str(Path(sys.prefix) / "bin" / "kryonix")
_PATIENCE_S = 100.0
# Exit codes with a report on stdout in place of an error on stderr.
_REPORTED = {0, 3, 55, 57, 58, 70}
# What Python says where it loses an interrupt before main begins.
_DROPPED = ("Exception ignored in", "Failed checking if argv[0] is an import path entry")
_IN_MAIN = re.compile(r'cli/main\.py", line \d+, in main')


class Outcome(NamedTuple):
    """What one run came to; ``code`` is negative for the signal that ended it."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def plain(self) -> dict[str, Any]:
        """The object that --json printed."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    @property
    def message(self) -> str:
        """The line that says what went wrong."""
        return next((line for line in self.err.splitlines() if line.startswith("error: ")), "")

    @property
    def hint(self) -> str:
        """The line that says what to do next."""
        return next((line for line in self.err.splitlines() if line.startswith("  next: ")), "")

    @property
    def starting(self) -> bool:
        """Whether it was interrupted while Python made itself ready."""
        return self.err.startswith("Fatal Python error: init") and "KeyboardInterrupt" in self.err

    def __str__(self) -> str:
        return f"kryonix {' '.join(self.words)!r} -> {self.code}\n{self.out[-3000:]}\n{self.err}"


@dataclass(frozen=True)
class Command:
    """One user's machine: a ``$KRYONIX_HOME`` and the secrets that are set there."""

    home: Path
    secret: Mapping[str, str] = field(repr=False)
    """Variables whose values nobody may ever see."""

    plain_key: bytes = field(default=b"", repr=False)
    """The content of the key file, likewise."""

    @classmethod
    def with_passphrase(cls, home: Path, **more: str) -> Command:
        """A machine with a fresh passphrase."""
        return cls(home, {"KRYONIX_PASSPHRASE": f"pass-{secrets.token_hex(12)}", **more})

    @classmethod
    def with_key_file(cls, home: Path, **more: str) -> Command:
        """A machine with a fresh key file, which takes no time to derive a key from."""
        home.mkdir(parents=True, exist_ok=True)
        key = secrets.token_bytes(32)
        (home / "key").write_bytes(key)
        return cls(home, more, key)

    def elsewhere(self, home: Path) -> Command:
        """The same user on another machine, where only the secrets are known."""
        home.mkdir(parents=True, exist_ok=True)
        if self.plain_key:
            (home / "key").write_bytes(self.plain_key)
        return replace(self, home=home)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables of a run."""
        ours = ("KRYONIX_", "AWS_", "PREFECT_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        key = {"KRYONIX_KEY_FILE": str(self.home / "key")} if self.plain_key else {}
        return {**kept, "KRYONIX_HOME": str(self.home), **key, **self.secret, **(more or {})}

    def start(
        self, *words: str, env: Mapping[str, str] | None = None, ordinary: bool = False,
        most_bytes: int | None = None,
    ) -> subprocess.Popen[str]:  # fmt: skip
        """
        Start a run in a process group of its own; end it with `finished`.

        An ``ordinary`` one may not do more than the owner of a file, even where root starts it;
        ``most_bytes`` is the size of the largest file that it may write.
        """
        # Whoever runs the tests in the background may have SIGINT ignored, and so its children.
        limits = ["env", "--default-signal=INT"]
        limits += [] if most_bytes is None else ["prlimit", f"--fsize={most_bytes}"]
        if ordinary and os.geteuid() == 0:
            limits += ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        return subprocess.Popen(
            [*limits, KRYONIX, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            env=self.environment(env),
            cwd="/",
            start_new_session=True,
        )

    def finished(self, process: subprocess.Popen[str], *words: str) -> Outcome:
        """What a started run came to, once it has ended."""
        try:
            out, err = process.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"kryonix {words} hangs: {out}{err}") from None
        outcome = Outcome(words, process.returncode, out, err)
        self.hold(outcome)
        return outcome

    def run(self, *words: str, expect: int | None = 0, **how: Any) -> Outcome:
        """Run to the end; fails unless the exit code is the expected one (None: any)."""
        outcome = self.finished(self.start(*words, **how), *words)
        assert expect is None or outcome.code == expect, f"expected {expect}: {outcome}"
        return outcome

    def run_each(
        self, commands: Iterable[Sequence[str]], *, expect: int, **how: Any
    ) -> list[Outcome]:
        """Run them at once, each to its end; fails unless each exit code is the expected one."""
        running = [(words, self.start(*words, **how)) for words in commands]
        outcomes = [self.finished(process, *words) for words, process in running]
        wrong = [str(outcome) for outcome in outcomes if outcome.code != expect]
        assert not wrong, f"expected {expect}: {wrong}"
        return outcomes

    def report(self, *words: str, expect: int = 0, **how: Any) -> dict[str, Any]:
        """The object that a run with --json prints."""
        return self.run(*words, "--json", expect=expect, **how).plain

    def struck(self, seconds: float, *words: str, by: signal.Signals = signal.SIGKILL) -> Outcome:
        """A run that gets a signal after so many seconds, unless it has ended before."""
        process = self.start(*words)
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, by)
        return self.finished(process, *words)

    def hold(self, outcome: Outcome) -> None:
        """What holds for every run."""
        said = outcome.out + outcome.err
        hidden = [*self.secret.values()]
        if self.plain_key:
            hidden += [self.plain_key.hex(), base64.b64encode(self.plain_key).decode()]
        for value in hidden:
            assert value not in said, f"a secret was told by {outcome.words}"
        assert "Traceback" not in said or _is_pythons_own(outcome), str(outcome)
        assert not outcome.message.startswith("error: unexpected"), str(outcome)
        if outcome.code > 0 and outcome.code not in _REPORTED and not outcome.starting:
            assert len(outcome.message) > len("error: "), str(outcome)
            assert len(outcome.hint) > len("  next: ."), str(outcome)


def _is_pythons_own(outcome: Outcome) -> bool:
    """Whether Python itself answered to SIGINT: before main began, or where it cannot be raised."""
    outside = outcome.starting or (
        outcome.code == -signal.SIGINT and not _IN_MAIN.search(outcome.err)
    )
    lost = outcome.err.startswith(_DROPPED) and "KeyboardInterrupt" in outcome.err
    return outside or lost
