"""What a command reads and writes by itself: stdin, stdout and stderr, whatever it was given."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from kryonix_backup.errors import KryonixError

_STDOUT, _STDERR = 1, 2
_HINT = "What the command did is done; only its answer is lost. Lead stdout to where there is room."


def make_streams_whole() -> None:
    """
    Let stdin, stdout and stderr be there, and stdout lose nothing.

    A service may close them: the next file that is opened would take their number, and be written
    into by whoever means stderr. They lead to nowhere then.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(nowhere, True)
    os.close(nowhere)
    sys.stdout = _lossless(sys.stdout or _opened(_STDOUT))
    sys.stderr = sys.stderr or _opened(_STDERR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _opened(number: int) -> TextIO:
    return open(number, "w", encoding="utf-8", closefd=False)


def _lossless(stream: TextIO) -> TextIO:
    """With PYTHONUNBUFFERED what a full disk or a leaving reader does not take would be dropped."""
    if not isinstance(stream.buffer, io.RawIOBase):
        return stream
    buffer = io.BufferedWriter(stream.buffer)
    return io.TextIOWrapper(buffer, stream.encoding, line_buffering=True, write_through=True)


@contextmanager
def telling() -> Iterator[None]:
    """Tell what stdout does not take as an error of its own, once; raises KryonixError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        forget_stdout()
        raise KryonixError(f"stdout does not take the answer: {error.strerror}", _HINT) from error


def forget_stdout() -> None:
    """Lead stdout to nowhere, so that nothing fails again when it is closed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
