"""
A store whose failures are scripted, for tests.

A script holds one fault for each call of a method, in order: ``None`` lets the call pass, an error
is raised instead of making it, and the classes below do what their names say. When a script has
ended every further call passes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kryonix_backup.errors import KryonixError
from kryonix_backup.model import Blob
from kryonix_backup.storage.store import ObjectInfo, ObjectStore


@dataclass(frozen=True)
class AnswerLost:
    """The call is made and takes effect, and then the error is raised."""

    error: KryonixError


@dataclass(frozen=True)
class Truncated:
    """A read returns only its first ``length`` bytes, and no error."""

    length: int


@dataclass(frozen=True)
class Changed:
    """A read returns its bytes with the one at ``offset`` changed, and no error."""

    offset: int


@dataclass(frozen=True)
class CutOff:
    """A listing breaks off with the error after ``count`` objects."""

    count: int
    error: KryonixError


_METHODS = {"create", "put", "replace", "delete", "get", "get_range", "size", "list"}
Fault = KryonixError | AnswerLost | Truncated | Changed | CutOff | None


class FaultyStore:
    """An `ObjectStore` that passes calls on to ``inner`` but for its scripted faults."""

    def __init__(self, inner: ObjectStore, **scripts: Iterable[Fault]) -> None:
        """Scripts are named for methods: ``put``, ``get``, ``get_range`` and so on."""
        unknown = set(scripts) - _METHODS
        if unknown:
            raise TypeError(f"a store has no method {sorted(unknown)[0]}")
        self.calls: list[tuple[str, str]] = []
        self._inner = inner
        self._scripts = {method: deque(faults) for method, faults in scripts.items()}
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """The inner store's address."""
        return self._inner.address

    @property
    def parallel(self) -> int:
        """What suits the inner store."""
        return self._inner.parallel

    def create(self) -> None:
        """Pass on, or fail."""
        with _Call(self._next("create", "")):
            self._inner.create()

    def put(self, name: str, body: Blob) -> None:
        """Pass on, or fail before or after the object is written."""
        with _Call(self._next("put", name)):
            self._inner.put(name, body)

    def replace(self, name: str, body: Blob) -> None:
        """Pass on, or fail before or after the object is written."""
        with _Call(self._next("replace", name)):
            self._inner.replace(name, body)

    def delete(self, name: str) -> None:
        """Pass on, or fail before or after the object is gone."""
        with _Call(self._next("delete", name)):
            self._inner.delete(name)

    def get(self, name: str) -> bytes:
        """Pass on, fail, or return less or something else."""
        with _Call(self._next("get", name)) as call:
            return call.spoil(self._inner.get(name))

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Pass on, fail, or return less or something else."""
        with _Call(self._next("get_range", name)) as call:
            return call.spoil(self._inner.get_range(name, start, length))

    def size(self, name: str) -> int:
        """Pass on, or fail."""
        with _Call(self._next("size", name)):
            return self._inner.size(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Pass on, fail, or break off after some objects."""
        fault = self._next("list", prefix)
        with _Call(fault):
            for count, info in enumerate(self._inner.list(prefix)):
                if isinstance(fault, CutOff) and count == fault.count:
                    raise fault.error
                yield info
            if isinstance(fault, CutOff):
                raise fault.error

    def assert_all_faults_fired(self) -> None:
        """Raises AssertionError naming the faults that no call has met."""
        left = {
            method: [fault for fault in faults if fault is not None]
            for method, faults in self._scripts.items()
        }
        unmet = {method: faults for method, faults in left.items() if faults}
        assert not unmet, f"faults that did not fire: {unmet}"

    def _next(self, method: str, name: str) -> Fault:
        with self._lock:
            self.calls.append((method, name))
            script = self._scripts.get(method)
            return script.popleft() if script else None


class _Call:
    """One call and the fault it meets."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def __enter__(self) -> _Call:
        if isinstance(self._fault, KryonixError):
            raise self._fault
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None and isinstance(self._fault, AnswerLost):
            raise self._fault.error

    def spoil(self, body: bytes) -> bytes:
        """The body as the fault makes it."""
        if isinstance(self._fault, Truncated):
            return body[: self._fault.length]
        if isinstance(self._fault, Changed):
            changed = bytearray(body)
            changed[self._fault.offset] ^= 0xFF
            return bytes(changed)
        return body
