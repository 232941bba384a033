from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.errors import (
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreThrottled,
    StoreUnavailable,
    TransientError,
)
from kryonix_backup.storage.memory import MemoryStore
from kryonix_backup.storage.retrying import RetryingStore
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.faults import AnswerLost, CutOff, Fault, FaultyStore
from tests.storage.contract import StoreContract, names

GONE = StoreUnavailable("gone for now")
SLOW = StoreThrottled("slow down")


class TestRetryingStore(StoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        """Every other call fails in passing, and every fifth put after it took effect."""
        once: list[Fault] = [GONE, None, SLOW, None, AnswerLost(GONE)] * 400
        faulty = FaultyStore(
            MemoryStore(), put=once, get=once[:-1], get_range=once, size=once, list=once[:4]
        )
        # Threads share the script: one of them may meet many faults in a row.
        return RetryingStore(faulty, FixedClock(), attempts=100)


def retrying(
    clock: FixedClock | None = None, attempts: int = 6, **scripts: list[Fault]
) -> tuple[RetryingStore, FaultyStore, MemoryStore]:
    memory = MemoryStore()
    faulty = FaultyStore(memory, **scripts)
    return RetryingStore(faulty, clock or FixedClock(), attempts), faulty, memory


def test_a_passing_failure_is_tried_again() -> None:
    store, faulty, memory = retrying(
        create=[GONE], put=[GONE, SLOW], get=[GONE], get_range=[SLOW], size=[GONE], list=[GONE],
        replace=[GONE, AnswerLost(SLOW)], delete=[GONE, AnswerLost(GONE)],
    )  # fmt: skip

    store.create()
    store.put("a", b"body")
    store.replace("b", b"other")
    store.replace("b", b"another")
    store.delete("b")

    assert store.get("a") == b"body"
    assert store.get_range("a", 1, 2) == b"od"
    assert store.size("a") == 4
    assert names(store) == ["a"]
    assert memory.objects == {"a": b"body"}
    faulty.assert_all_faults_fired()


def test_attempts_come_to_an_end() -> None:
    store, faulty, _ = retrying(attempts=3, get=[GONE] * 10)

    with pytest.raises(StoreUnavailable, match="gone for now"):
        store.get("a")
    assert len(faulty.calls) == 3


@pytest.mark.parametrize("error", [StoreDenied("no"), ObjectMissing("none")])
def test_a_final_failure_is_not_tried_again(error: StoreDenied) -> None:
    clock = FixedClock()
    store, faulty, _ = retrying(clock, put=[error], list=[error])

    with pytest.raises(type(error)):
        store.put("a", b"")
    with pytest.raises(type(error)):
        list(store.list(""))
    assert (len(faulty.calls), clock.slept) == (2, [])


def test_an_object_that_was_there_before_stays_an_error() -> None:
    store, _, _ = retrying()
    store.put("a", b"body")

    with pytest.raises(ObjectExists):
        store.put("a", b"body")


def test_a_put_whose_answer_was_lost_has_succeeded() -> None:
    store, faulty, memory = retrying(put=[AnswerLost(GONE)], size=[GONE], get=[SLOW])

    store.put("a", b"body")

    assert memory.objects == {"a": b"body"}
    faulty.assert_all_faults_fired()


@pytest.mark.parametrize("other", [b"yours", b"body of another size"])
def test_a_put_that_another_writer_overtook_is_refused(other: bytes) -> None:
    store, faulty, memory = retrying(put=[GONE])
    memory.put("a", other)

    with pytest.raises(ObjectExists):
        store.put("a", b"ours!")
    assert memory.objects == {"a": other}
    faulty.assert_all_faults_fired()


def test_a_listing_that_broke_off_names_each_object_once() -> None:
    store, faulty, memory = retrying(
        attempts=2, list=[CutOff(3, GONE), CutOff(0, SLOW), CutOff(5, GONE), None]
    )
    for number in range(8):
        memory.put(f"packs/{number}", b"")

    with pytest.raises(StoreThrottled):
        list(store.list("packs/"))
    listed = [info.name for info in store.list("packs/")]

    assert sorted(listed) == [f"packs/{number}" for number in range(8)]
    faulty.assert_all_faults_fired()


def test_progress_of_a_listing_gives_it_new_attempts() -> None:
    cuts: list[Fault] = [CutOff(count, GONE) for count in range(1, 9)]
    store, _, memory = retrying(attempts=2, list=cuts)
    for number in range(8):
        memory.put(f"packs/{number}", b"")

    assert len(list(store.list("packs/"))) == 8


def test_a_retry_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kryonix_backup.storage.retrying")
    store, _, _ = retrying(put=[GONE])

    store.put("a", b"")

    assert [(record.msg, record.__dict__["reason"]) for record in caplog.records] == [
        ("store.retry", "gone for now")
    ]


def test_who_waits_longer_is_told_without_asking(caplog: pytest.LogCaptureFixture) -> None:
    store, _, _ = retrying(put=[GONE, GONE])

    store.put("a", b"")

    assert [(record.msg, record.levelname) for record in caplog.records] == [
        ("store.retry", "WARNING")
    ]


@given(
    chances=st.lists(st.floats(0, 1, exclude_max=True), min_size=12, max_size=12),
    delay=st.floats(0.01, 5),
    longest=st.floats(0.01, 60),
    errors=st.lists(st.sampled_from([GONE, SLOW]), max_size=12),
)
def test_every_wait_is_a_share_of_a_doubling_bound(
    chances: list[float], delay: float, longest: float, errors: list[TransientError]
) -> None:
    clock, chance = FixedClock(), iter(chances)
    faulty = FaultyStore(MemoryStore(), put=errors)
    store = RetryingStore(
        faulty, clock, 13, delay=delay, longest=longest, chance=lambda: next(chance)
    )

    store.put("a", b"")

    assert len(clock.slept) == len(errors)
    for number, (wait, share) in enumerate(zip(clock.slept, chances, strict=False)):
        assert wait == share * min(longest, delay * 2**number)
