"""
What we write into a database's own log, as JSON.

A *beat* carries the values of the sequences, which the log itself does not hold, in a message of
``pg_logical_emit_message``, which every role may write: a forged one gives a database other values
of its own sequences, and no more. A *ddl* is a change of the schema as it was typed, in a row of
``kryonix.told``, which only our trigger can write: it is repeated with the rights of whoever it
names. Both stand where their transaction commits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Sequence as Sequence_
from typing import Any, NamedTuple

from kryonix_backup.errors import Damaged

PREFIX = "kryonix"


class Sequence(NamedTuple):
    """A sequence's state; ``last`` is None where it was never used."""

    schema: str
    name: str
    last: int | None


class Beat(NamedTuple):
    """
    The sequences as they were after everything that was committed before the place ``before``.

    ``publication`` is the oid of our publication at that moment, 0 where it was gone.
    """

    sequences: tuple[Sequence, ...]
    publication: int
    before: int


class Ddl(NamedTuple):
    """
    One change of the schema; ``opaque`` says why it cannot be repeated, or is empty.

    ``missing`` holds, as [schema, table, column, text], what existing rows got for columns that
    were added with a default: some defaults would give another value when they run again.
    ``settings`` are those that its text is read by, such as DateStyle.
    """

    tag: str
    query: str
    search_path: str
    role: str
    missing: tuple[tuple[str, str, str, str], ...]
    opaque: str
    settings: tuple[tuple[str, str], ...]


def told(row: Sequence_[object] | None) -> Ddl:
    """A change of the schema, out of a row that our trigger wrote; raises Damaged."""
    content = row[1] if row is not None and len(row) > 1 else None
    said = parse(content) if isinstance(content, bytes) else None
    if not isinstance(said, Ddl):
        raise Damaged("a row of ours in the log has the wrong form")
    return said


def parse(content: bytes) -> Beat | Ddl:
    """A message of ours; raises Damaged."""
    try:
        plain: Mapping[str, Any] = json.loads(content)
        match plain["kind"]:
            case "beat":
                rows = tuple(
                    Sequence(_text(schema), _text(name), None if last is None else _number(last))
                    for schema, name, last in plain["sequences"]
                )
                return Beat(rows, _number(plain["publication"]), _number(plain["before"]))
            case "ddl":
                missing = tuple(
                    (_text(a), _text(b), _text(c), _text(d)) for a, b, c, d in plain["missing"]
                )
                settings = tuple(
                    (_text(name), _text(value)) for name, value in plain["settings"].items()
                )
                return Ddl(
                    _text(plain["tag"]),
                    _text(plain["query"]),
                    _text(plain["search_path"]),
                    _text(plain["role"]),
                    missing,
                    _text(plain["opaque"]),
                    settings,
                )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged("a message of ours in the log has the wrong form") from error
    raise Damaged(f"a message of ours in the log is of no known kind: {plain['kind']!r}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value
