"""The one place where a request to a store is tried again: its clients of vendors do not."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from typing import TypeVar

from kryonix_backup.clock import Clock
from kryonix_backup.errors import ObjectExists, TransientError
from kryonix_backup.model import Blob
from kryonix_backup.storage.store import ObjectInfo, ObjectStore

T = TypeVar("T")
Chance = Callable[[], float]

_log = logging.getLogger(__name__)
_any_moment: Chance = secrets.SystemRandom().random


class RetryingStore:
    """
    An `ObjectStore` that asks ``inner`` again when a failure is passing.

    A request is made up to ``attempts`` times. Before the n-th retry it waits for a random part of
    ``delay`` times 2 to the n-1, at most ``longest``, in seconds: clients that failed together do
    not come back together.
    """

    def __init__(
        self,
        inner: ObjectStore,
        clock: Clock,
        attempts: int = 6,
        *,
        delay: float = 0.25,
        longest: float = 20.0,
        chance: Chance = _any_moment,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._attempts = attempts
        self._delay = delay
        self._longest = longest
        self._chance = chance

    @property
    def address(self) -> str:
        """The inner store's address."""
        return self._inner.address

    @property
    def parallel(self) -> int:
        """What suits the inner store."""
        return self._inner.parallel

    def create(self) -> None:
        """Make the bucket or directory where it is missing."""
        self._persist(self._inner.create)

    def put(self, name: str, body: Blob) -> None:
        """
        Write a new object; raises ObjectExists.

        An attempt whose answer was lost may have written it: when a later one finds the name taken,
        the object counts as written if it holds these very bytes.
        """
        failures = 0
        while True:
            try:
                self._inner.put(name, body)
            except TransientError as error:
                failures += 1
                self._pause(error, failures)
            except ObjectExists:
                if not failures or not self._holds(name, body):
                    raise
                return
            else:
                return

    def replace(self, name: str, body: Blob) -> None:
        """Write an object whether it is there or not."""
        self._persist(lambda: self._inner.replace(name, body))

    def delete(self, name: str) -> None:
        """Remove an object for good; one that is not there is no failure."""
        self._persist(lambda: self._inner.delete(name))

    def get(self, name: str) -> bytes:
        """A whole object; raises ObjectMissing."""
        return self._persist(lambda: self._inner.get(name))

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Bytes of an object from ``start`` on; raises ObjectMissing."""
        return self._persist(lambda: self._inner.get_range(name, start, length))

    def size(self, name: str) -> int:
        """An object's size in bytes; raises ObjectMissing."""
        return self._persist(lambda: self._inner.size(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose name starts with ``prefix``, each once, however often it fails."""
        seen: set[str] = set()
        failures = 0
        while True:
            try:
                for info in self._inner.list(prefix):
                    if info.name not in seen:
                        seen.add(info.name)
                        failures = 0
                        yield info
            except TransientError as error:
                failures += 1
                self._pause(error, failures)
            else:
                return

    def _persist(self, request: Callable[[], T]) -> T:
        failures = 0
        while True:
            try:
                return request()
            except TransientError as error:
                failures += 1
                self._pause(error, failures)

    def _pause(self, error: TransientError, failures: int) -> None:
        """Wait before the next attempt; raises the error itself where there is none."""
        if failures >= self._attempts:
            raise error
        wait = self._chance() * min(self._longest, self._delay * 2 ** (failures - 1))
        _log.log(
            # One fault is nothing; who waits for a server that is silent must hear of it.
            logging.WARNING if failures > 1 else logging.INFO,
            "store.retry",
            extra={"address": self.address, "reason": str(error), "wait_s": round(wait, 3)},
        )
        self._clock.sleep(wait)

    def _holds(self, name: str, body: Blob) -> bool:
        with memoryview(body) as expected:
            return self.size(name) == expected.nbytes and self.get(name) == body
