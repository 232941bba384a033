"""Several readers of one dump: each item once, barriers hold, and one failure ends all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from threading import Event, Thread

import pytest

from kryonix_backup.backup.sharing import Shared
from kryonix_backup.errors import SourceError
from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.source import Barrier, Item


def _item(number: int) -> Item:
    return Item(Entry(b"%04d" % number, EntryKind.DIRECTORY, 0))


def _run(shared: Shared, read: Callable[[int], None], readers: int = 3) -> None:
    shared.run([
        Thread(target=shared.guarded, args=(read, number), daemon=True)
        for number in range(readers)
    ])  # fmt: skip


def test_every_item_is_given_once() -> None:
    shared = Shared(map(_item, range(1000)))
    taken: list[Item] = []

    _run(shared, lambda _number: taken.extend(shared.items()))

    assert sorted(taken) == [_item(number) for number in range(1000)]


def test_a_barrier_waits_for_what_is_being_read_and_for_nobody_who_has_ended() -> None:
    done: list[Item] = []
    seen: list[int] = []

    def items() -> Iterator[Item | Barrier]:
        for number in range(30):
            yield _item(number)
            if number % 3 == 2:
                yield Barrier()
                seen.append(len(done))

    def read(_number: int) -> None:
        for item in shared.items():
            threading.Event().wait(0.001)
            done.append(item)

    shared = Shared(items())
    _run(shared, read)

    assert seen == list(range(3, 31, 3))


def test_the_first_failure_ends_all_readers_and_the_source() -> None:
    closed = Event()
    others = threading.Barrier(3)

    def items() -> Iterator[Item]:
        try:
            yield from map(_item, range(1000))
        finally:
            closed.set()

    def read(number: int) -> None:
        for _ in shared.items():
            others.wait(30)
            if number == 1:
                raise SourceError("the first")
            closed.wait(30)
            raise SourceError("because of it")

    shared = Shared(items())
    with pytest.raises(SourceError, match="the first"):
        _run(shared, read)


def test_a_reader_that_waits_at_a_barrier_ends_too() -> None:
    waiting = Event()

    def items() -> Iterator[Item | Barrier]:
        yield _item(1)
        yield _item(2)
        waiting.set()
        yield Barrier()
        raise AssertionError("passed")

    def read(_number: int) -> None:
        for item in shared.items():
            if item == _item(1):
                waiting.wait(30)
                raise SourceError("gone")

    shared = Shared(items())
    with pytest.raises(SourceError, match="gone"):
        _run(shared, read, readers=2)


def test_ctrl_c_ends_the_readers() -> None:
    before = threading.active_count()
    main = threading.main_thread().ident
    assert main is not None

    def read(_number: int) -> None:
        for item in shared.items():
            if item == _item(0):
                signal.pthread_kill(main, signal.SIGINT)
            threading.Event().wait(0.01)

    shared = Shared(map(_item, range(10**9)))
    with pytest.raises(KeyboardInterrupt):
        _run(shared, read)

    assert threading.active_count() == before
