"""The items of one dump, shared out to several threads that read them side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Condition, Thread

from kryonix_backup.sources.source import Barrier, Item


class Shared:
    """
    Gives each item to one of several readers, and a failure of one of them to whoever waits.

    The iterator is never used by two threads at once, nor closed while it is used.
    """

    def __init__(self, items: Iterator[Item | Barrier]) -> None:
        self._source = items
        self._turn = Condition()
        self._reading = 0  # items that were given out and are not done with
        self._barred = False
        self._over = False
        self._failure: BaseException | None = None

    def items(self) -> Iterator[Item]:
        """The items of one reader, each of which is done with when the next one is asked for."""
        while (item := self._next()) is not None:
            try:
                yield item
            finally:
                with self._turn:
                    self._reading -= 1
                    self._turn.notify_all()

    def guarded(self, read: Callable[[int], None], number: int) -> None:
        """Run one reader; when it fails, all end."""
        try:
            read(number)
        except BaseException as error:
            self._fail(error)

    def run(self, readers: Sequence[Thread]) -> None:
        """Run these threads to their end; raises what failed first in any of them."""
        try:
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
        except BaseException as error:  # an operator who has seen enough
            self._fail(error)
        finally:
            for reader in readers:
                if reader.ident is not None:
                    reader.join()
        if self._failure is not None:
            raise self._failure

    def _next(self) -> Item | None:
        with self._turn:
            while not self._over:
                if self._barred and self._reading:
                    self._turn.wait()
                    continue
                item = next(self._source, None)
                self._barred = isinstance(item, Barrier)
                if isinstance(item, Item):
                    self._reading += 1
                    return item
                self._over = item is None
            self._turn.notify_all()
        return None

    def _fail(self, failure: BaseException) -> None:
        with self._turn:
            self._failure = self._failure or failure
            self._over = True
            self._turn.notify_all()
            # A source that is told so stops what still gives it something to read.
            if (close := getattr(self._source, "close", None)) is not None:
                close()
