from __future__ import annotations

import pytest

from kryonix_backup.errors import StoreUnavailable
from kryonix_backup.storage.memory import MemoryStore
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.testing.faults import AnswerLost, Changed, CutOff, FaultyStore, Truncated
from tests.storage.contract import StoreContract

GONE = StoreUnavailable("gone for now")


class TestFaultyStore(StoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return FaultyStore(MemoryStore())


def test_an_error_comes_instead_of_the_call() -> None:
    memory = MemoryStore()
    store = FaultyStore(memory, put=[None, GONE])
    store.put("a", b"1")

    with pytest.raises(StoreUnavailable):
        store.put("b", b"2")
    store.put("c", b"3")

    assert sorted(memory.objects) == ["a", "c"]
    assert store.calls == [("put", "a"), ("put", "b"), ("put", "c")]
    store.assert_all_faults_fired()


def test_a_lost_answer_comes_after_the_call() -> None:
    memory = MemoryStore()
    store = FaultyStore(memory, put=[AnswerLost(GONE)])

    with pytest.raises(StoreUnavailable):
        store.put("a", b"1")

    assert memory.objects == {"a": b"1"}


def test_a_read_may_be_cut_short_or_changed() -> None:
    store = FaultyStore(MemoryStore(), get=[Truncated(2), Changed(1)], get_range=[Changed(0)])
    store.put("a", b"abcd")

    assert store.get("a") == b"ab"
    assert store.get("a") == b"a\x9dcd"
    assert store.get_range("a", 2, 2) == b"\x9cd"
    assert store.get("a") == b"abcd"


@pytest.mark.parametrize(("count", "listed"), [(0, 0), (2, 2), (9, 3)])
def test_a_listing_may_break_off(count: int, listed: int) -> None:
    store = FaultyStore(MemoryStore(), list=[CutOff(count, GONE)])
    for name in "abc":
        store.put(name, b"")
    listing = store.list("")

    for _ in range(listed):
        next(listing)
    with pytest.raises(StoreUnavailable):
        next(listing)


def test_a_fault_that_did_not_fire_is_named() -> None:
    store = FaultyStore(MemoryStore(), put=[None, GONE], size=[None])
    store.put("a", b"")

    with pytest.raises(AssertionError, match="gone for now"):
        store.assert_all_faults_fired()


def test_a_script_for_no_method_is_refused() -> None:
    with pytest.raises(TypeError, match="rename"):
        FaultyStore(MemoryStore(), rename=[GONE])
