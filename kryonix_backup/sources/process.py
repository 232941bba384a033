"""A vendor's program as a stream that fails loudly."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from kryonix_backup.errors import SourceError
from kryonix_backup.model import Blob

_SAID_BYTES = 4096  # of what a program says on its way out
_WAIT_S = 10.0
_PIPE_BYTES = 1 << 20  # the most that an ordinary user may have; a program then waits less often


class Program:
    """
    One run of a program; leave its context to end it.

    ``words`` hold no secret: everybody on the machine can see them. ``files`` are descriptors that
    the program finds as ``/dev/fd/N``, so that they need no name. What it says on stderr is kept
    for `finish`; a context that is left by an error ends the program at once.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        reads: bool = False,
        writes: bool = False,
        files: Sequence[int] = (),
    ) -> None:
        self.name = Path(words[0]).name
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
            stdout=subprocess.PIPE if writes else subprocess.DEVNULL,
            stderr=self._said,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", **env},
            pass_fds=files,
            start_new_session=True,  # Ctrl-C is ours to pass on
            bufsize=0,
        )
        if self._process.stdout is not None:
            fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def readinto(self, view: memoryview) -> int:
        """What the program wrote, as much as there is; 0 at its end."""
        out = self._stream(self._process.stdout)
        return os.readv(out.fileno(), [view])

    def read_all(self) -> bytes:
        """Everything it writes; raises what `finish` raises."""
        out = self._stream(self._process.stdout)
        body = b"".join(iter(lambda: out.read(1 << 20), b""))
        self.finish()
        return body

    def write(self, piece: Blob) -> None:
        """Give the program something to read; raises what `finish` raises where it has ended."""
        into = self._stream(self._process.stdin)
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(into.fileno(), view) :]
        except BrokenPipeError:
            self.finish()
            raise SourceError(f"{self.name} ended before it had read everything") from None

    def finish(self) -> None:
        """Wait for its end; raises SourceError with what it said where it failed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        code = self._process.wait()
        if code:
            raise SourceError(f"{self.name} failed ({code}): {self.said()}")

    def said(self) -> str:
        """The end of what it said on stderr, in one line."""
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - _SAID_BYTES))
        return " ".join(self._said.read().decode("utf-8", "replace").split())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def end(self) -> None:
        """End the program where it still runs; who reads from it meanwhile finds its end."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_WAIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def stop(self) -> None:
        """End the program where it still runs, and let go of it; twice does nothing."""
        self.end()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream is not None:
                stream.close()

    def _stream(self, stream: IO[bytes] | None) -> IO[bytes]:
        assert stream is not None, "the program was not started for this"
        return stream
