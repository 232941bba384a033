"""
Frames of a sample of a database's large objects, which stand in a log beside pgoutput's messages.

Their kind, ``L``, is none of pgoutput's. A sample begins with what it is of, then each object that
may have changed since the sample before is told whole, and at last which there are, and what is
said of them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from kryonix_backup.errors import Damaged
from kryonix_backup.model import MIB
from kryonix_backup.sources.postgres.decoding.encoding import framed

KIND = ord("L")
MARK = "objects"
"""Under this name the meta of segments and of `database.json` says of when objects are."""

PIECE_BYTES = MIB - 6
"""Of content: with what stands before it it is a whole chunk, where it is kept as one."""

_RUN = struct.Struct(">II")


class Begun(NamedTuple):
    """
    A sample: everything that was committed before the place ``at`` is in it.

    Nothing in it was committed after ``time``; ``total`` is how many objects there were.
    """

    at: int
    time: datetime
    total: int


class Told(NamedTuple):
    """An object, whose content follows in pieces; ``meta`` is what the entry of a backup has."""

    oid: int
    meta: Mapping[str, Any]


class Piece(NamedTuple):
    """The next bytes of the object that was told last."""

    data: memoryview


class Runs(NamedTuple):
    """Objects that there are, in order, as first oids and how many follow each other from there."""

    runs: list[tuple[int, int]]


class Comments(NamedTuple):
    """What is said of objects; those of which nothing is said are not among them."""

    comments: dict[int, str]


class Ended(NamedTuple):
    """The sample is whole."""


Part = Begun | Told | Piece | Runs | Comments | Ended


def begun(sample: Begun) -> bytes:
    """The frame that begins a sample."""
    return _json(b"Ls", {"at": sample.at, "time": sample.time.isoformat(), "total": sample.total})


def told(oid: int, meta: Mapping[str, Any]) -> bytes:
    """The frame of an object."""
    return _json(b"Lo", {"oid": oid, **meta})


def piece(data: bytes) -> bytes:
    """The frame of the next bytes of it."""
    return framed(b"Ld" + data)


def runs(of: Iterable[tuple[int, int]]) -> bytes:
    """The frame of some of those that there are."""
    return framed(b"Ll" + b"".join(_RUN.pack(*each) for each in of))


def comments(of: Iterable[tuple[int, str]]) -> bytes:
    """The frame of some of what is said."""
    return _json(b"Lc", [list(each) for each in of])


def ended() -> bytes:
    """The frame that ends a sample."""
    return framed(b"Le")


def parse(message: bytes) -> Part:
    """What a frame of this kind says; raises Damaged."""
    body = memoryview(message)[2:]
    try:
        match message[1:2]:
            case b"s":
                plain = json.loads(bytes(body))
                time = datetime.fromisoformat(plain["time"])
                return Begun(int(plain["at"]), time, int(plain["total"]))
            case b"o":
                plain = json.loads(bytes(body))
                return Told(int(plain.pop("oid")), {name: plain[name] for name in _META})
            case b"d":
                return Piece(body)
            case b"l":
                return Runs(list(_RUN.iter_unpack(body)))
            case b"c":
                return Comments({int(oid): str(text) for oid, text in json.loads(bytes(body))})
            case b"e":
                return Ended()
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise Damaged("a part of a sample of large objects has the wrong form") from error
    raise Damaged("a part of a sample of large objects is of an unknown kind")


_META = ("owner", "acl", "comment")


def _json(kind: bytes, content: object) -> bytes:
    return framed(kind + json.dumps(content).encode())
