from __future__ import annotations

from pathlib import Path

import pytest

from kryonix_backup.errors import ObjectExists, ObjectMissing
from kryonix_backup.storage.bandwidth import SLACK_S, Bandwidth
from kryonix_backup.storage.memory import MemoryStore
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.storage.throttling import Throttle, ThrottledStore
from kryonix_backup.testing.clock import FixedClock
from tests.storage.contract import StoreContract, names

MBIT = 8 * 10**6  # a rate of 1 MB/s


class TestThrottledStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return throttled(tmp_path, FixedClock())


def throttled(folder: Path, clock: FixedClock, parallel: int = 3) -> ThrottledStore:
    throttle = Throttle(Bandwidth(folder / "bandwidth", MBIT, clock), parallel)
    return ThrottledStore(MemoryStore(), throttle)


def test_every_byte_takes_its_time_up_and_down(tmp_path: Path) -> None:
    clock = FixedClock()
    store = throttled(tmp_path, clock)

    store.put("a", bytes(10**6))
    store.replace("b", bytes(10**6))
    assert clock.monotonic() == pytest.approx(2, abs=SLACK_S + 1e-6)
    store.get("a")
    store.get_range("a", 0, 5 * 10**5)
    store.get_range("a", 5 * 10**5, 10**9)

    assert clock.monotonic() == pytest.approx(4, abs=SLACK_S + 1e-6)


def test_two_stores_of_a_tenant_share_its_bandwidth(tmp_path: Path) -> None:
    clock = FixedClock()

    for store in (throttled(tmp_path, clock), throttled(tmp_path, clock)):
        store.put("a", bytes(10**6))

    assert clock.monotonic() == pytest.approx(2, abs=SLACK_S + 1e-6)


def test_a_listing_takes_its_bytes_too(tmp_path: Path) -> None:
    clock = FixedClock()
    store = throttled(tmp_path, clock)
    for number in range(2500):
        store.put(f"a/{number}", b"")
    before = clock.monotonic()

    assert len(names(store)) == 2500
    assert clock.monotonic() - before == pytest.approx(1.0, abs=SLACK_S + 1e-6)


def test_what_fails_has_taken_its_bytes(tmp_path: Path) -> None:
    clock = FixedClock()
    store = throttled(tmp_path, clock)
    store.put("a", b"")

    with pytest.raises(ObjectExists):
        store.put("a", bytes(10**6))
    with pytest.raises(ObjectMissing):
        store.get("none")
    store.put("b", bytes(10**6))

    assert clock.monotonic() == pytest.approx(2, abs=SLACK_S + 1e-6)


def test_memory_decides_how_many_go_at_once(tmp_path: Path) -> None:
    wide = MemoryStore()
    wide.parallel = 3
    throttle = Throttle(Bandwidth(tmp_path / "bandwidth", MBIT, FixedClock()), 2)

    assert ThrottledStore(wide, throttle).parallel == 2
    assert throttled(tmp_path, FixedClock()).parallel == 1
