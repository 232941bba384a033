"""The one place where a store is slowed down to what its tenant may take."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from kryonix_backup.model import Blob
from kryonix_backup.storage.bandwidth import Bandwidth
from kryonix_backup.storage.store import ObjectInfo, ObjectStore

_ROW_BYTES = 400  # of one object in an answer to a listing of S3
_ROWS = 1000  # of one such answer


class Throttle(NamedTuple):
    """What a tenant may take of a store: bytes in a second, and `put` at once."""

    bandwidth: Bandwidth
    parallel: int


class ThrottledStore:
    """
    An `ObjectStore` that moves no more bytes of ``inner`` than the tenant's bandwidth allows.

    An object goes through whole, then as long as it would have taken at the tenant's rate passes
    before the call returns, and before any other of the tenant's begins. A request that fails has
    taken its bytes too.
    """

    def __init__(self, inner: ObjectStore, throttle: Throttle) -> None:
        self._inner = inner
        self._bandwidth, self._parallel = throttle

    @property
    def address(self) -> str:
        """The inner store's address."""
        return self._inner.address

    @property
    def parallel(self) -> int:
        """What suits the inner store, as far as the tenant's memory allows."""
        return min(self._inner.parallel, self._parallel)

    def create(self) -> None:
        """Make the bucket or directory where it is missing."""
        self._inner.create()

    def put(self, name: str, body: Blob) -> None:
        """Write a new object; raises ObjectExists."""
        until = self._bandwidth.take(memoryview(body).nbytes)
        self._inner.put(name, body)
        self._bandwidth.wait(until)

    def replace(self, name: str, body: Blob) -> None:
        """Write an object, whether it is there or not."""
        until = self._bandwidth.take(memoryview(body).nbytes)
        self._inner.replace(name, body)
        self._bandwidth.wait(until)

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        self._inner.delete(name)

    def get(self, name: str) -> bytes:
        """A whole object; raises ObjectMissing."""
        begun = self._bandwidth.now()
        return self._received(self._inner.get(name), begun)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Bytes of an object from ``start`` on; raises ObjectMissing."""
        begun = self._bandwidth.now()
        return self._received(self._inner.get_range(name, start, length), begun)

    def size(self, name: str) -> int:
        """An object's size in bytes; raises ObjectMissing."""
        return self._inner.size(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose name starts with ``prefix``; a listing takes bandwidth too."""
        rows = iter(self._inner.list(prefix))
        begun = self._bandwidth.now()
        while page := tuple(islice(rows, _ROWS)):
            self._bandwidth.wait(self._bandwidth.take(_ROW_BYTES * len(page), begun))
            yield from page
            begun = self._bandwidth.now()

    def _received(self, body: bytes, begun: float) -> bytes:
        # How much it is shows only when it is there: it is handed on when it is paid for.
        self._bandwidth.wait(self._bandwidth.take(len(body), begun))
        return body
