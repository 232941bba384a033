"""What a command found, printed as text or as one JSON object."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from kryonix_backup.cli.streams import forget_stdout, telling
from kryonix_backup.dumps import forbid_dumps
from kryonix_backup.model import Blob

Plain = Mapping[str, Any]

CLOSED_PIPE = 141


class Answer(NamedTuple):
    """
    What a command found.

    ``plain`` is what --json prints; a value that is an iterator becomes a list while it is read,
    and a function is only called for JSON. ``lines`` are for people; pieces of bytes among them are
    written as they are. Only one of the two is read.
    """

    plain: Plain | Callable[[], Plain]
    lines: Iterable[str | Blob]
    exit_code: int = 0


def answers(command: Callable[..., Answer]) -> Callable[..., int]:
    """Give a command --json and --verbose, print its answer, and return its exit code."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @click.option("-v", "--verbose", is_flag=True, help="Log what is done, and errors in full.")
    @functools.wraps(command)
    def run(*args: Any, as_json: bool, verbose: bool, **kwargs: Any) -> int:
        forbid_dumps()
        log_to_stderr(verbose=verbose)
        answer = command(*args, **kwargs)
        try:
            _print(answer, as_json=as_json)
        except BrokenPipeError:
            # Who read us has gone; say nothing, as programs do that SIGPIPE ends.
            forget_stdout()
            return CLOSED_PIPE
        return answer.exit_code

    return run


def _print(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        plain = answer.plain() if callable(answer.plain) else answer.plain
        for text in _json(plain):
            _write(text)
        _write("\n")
    else:
        for line in answer.lines:
            _write(line + "\n" if isinstance(line, str) else line)
    with telling():
        sys.stdout.flush()


def _json(plain: Plain) -> Iterator[str]:
    """The object as JSON, piece by piece, so that a long list is never held whole."""
    if not any(isinstance(value, Iterator) for value in plain.values()):
        yield json.dumps(plain)
        return
    before, between = "{", ""
    for name, value in plain.items():
        before += f"{between}{json.dumps(name)}: "
        between = ", "
        if isinstance(value, Iterator):
            yield from _json_list(before, value)
            before = ""
        else:
            before += json.dumps(value)
    yield before + "}"


def _json_list(before: str, items: Iterator[Any]) -> Iterator[str]:
    # The first item first: an error that it raises leaves before anything is printed.
    first = [json.dumps(item) for _, item in zip(range(1), items, strict=False)]
    yield before + "[" + "".join(first)
    for item in items:
        yield ",\n" + json.dumps(item)
    yield "]"


def _write(piece: str | Blob) -> None:
    context = click.get_current_context(silent=True)
    if context is not None and isinstance(context.obj, dict):
        context.obj["answering"] = True
    with telling():
        if isinstance(piece, str):
            sys.stdout.write(piece)
        else:
            sys.stdout.buffer.write(piece)


class _FieldFormatter(logging.Formatter):
    """The event, then its fields as name=value."""

    _own = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        extra = {name: value for name, value in vars(record).items() if name not in self._own}
        fields = "".join(f" {name}={value}" for name, value in extra.items())
        when = datetime.fromtimestamp(record.created, UTC)
        return f"{when:%H:%M:%S}Z {record.levelname.lower()}: {super().format(record)}{fields}"


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to the stderr of the moment, which a line of progress may have taken over."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def log_to_stderr(*, verbose: bool) -> None:
    """Send warnings to stderr, or everything of ours."""
    handler = _StderrHandler()
    handler.setFormatter(_FieldFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("kryonix_backup").setLevel(logging.DEBUG if verbose else logging.NOTSET)
