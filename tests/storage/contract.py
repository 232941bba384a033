"""What every `ObjectStore` promises; an adapter's test class inherits it and makes a ``store``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from kryonix_backup.errors import InvalidName, KryonixError, ObjectExists, ObjectMissing
from kryonix_backup.model import MIB
from kryonix_backup.storage.store import ObjectStore

BODY = bytes(range(256)) * 40

BAD_NAMES = [
    "",
    "/etc/passwd",
    "../outside",
    "packs/../../outside",
    "packs/./a",
    "packs//a",
    "packs/",
    "packs/.hidden",
    "tmp/a",
    "Packs/a",
    "packs/a b",
    "packs/a\n",
    "packs/a\0",
    "packs/\u00e9",
    "packs\\a",
    "a" * 801,
    "packs/" + "a" * 201,
]


def names(store: ObjectStore, prefix: str = "") -> list[str]:
    """The names of a listing, sorted."""
    return sorted(info.name for info in store.list(prefix))


class StoreContract:
    """The promises of the port; ``many`` is more than one page of a listing."""

    many = 300

    def test_what_was_put_is_what_is_read(self, store: ObjectStore) -> None:
        store.put("packs/aa/one", BODY)

        assert store.get("packs/aa/one") == BODY
        assert isinstance(store.get("packs/aa/one"), bytes)
        assert store.size("packs/aa/one") == len(BODY)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_a_body_may_be_any_buffer(self, store: ObjectStore, kind: type) -> None:
        store.put("a", kind(BODY))
        store.put("part", memoryview(bytearray(BODY))[100:300])

        assert store.get("a") == BODY
        assert store.get("part") == BODY[100:300]

    def test_an_object_may_be_empty(self, store: ObjectStore) -> None:
        store.put("empty", b"")

        assert store.get("empty") == b""
        assert store.size("empty") == 0
        assert store.get_range("empty", 0, 10) == b""
        assert names(store) == ["empty"]

    def test_an_object_may_be_large(self, store: ObjectStore) -> None:
        body = BODY * (17 * MIB // len(BODY))
        store.put("packs/large", body)

        assert store.get("packs/large") == body
        assert store.get_range("packs/large", 16 * MIB, 7) == body[16 * MIB :][:7]

    def test_an_object_is_never_overwritten(self, store: ObjectStore) -> None:
        store.put("a", b"first")

        for body in (b"second", b"first"):
            with pytest.raises(ObjectExists, match="object a exists already"):
                store.put("a", body)
        assert store.get("a") == b"first"

    def test_replacing_is_all_or_nothing(self, store: ObjectStore) -> None:
        store.replace("snapshots/a", b"first")
        store.replace("snapshots/a", b"the second, longer")
        store.replace("snapshots/b", b"")

        assert store.get("snapshots/a") == b"the second, longer"
        assert names(store) == ["snapshots/a", "snapshots/b"]
        with pytest.raises(ObjectExists):
            store.put("snapshots/a", b"third")

    def test_what_was_removed_is_gone_and_its_name_is_free(self, store: ObjectStore) -> None:
        store.put("packs/aa/one", BODY)
        store.put("packs/aa/two", BODY)

        for _ in range(2):
            store.delete("packs/aa/one")
        store.delete("nothing/there")

        assert names(store) == ["packs/aa/two"]
        with pytest.raises(ObjectMissing):
            store.get("packs/aa/one")
        store.put("packs/aa/one", b"again")
        assert store.get("packs/aa/one") == b"again"

    def test_of_twelve_racing_writers_one_wins(self, store: ObjectStore) -> None:
        barrier = threading.Barrier(12)

        def race(number: int) -> int | None:
            barrier.wait()
            try:
                store.put("snapshots/race", f"writer {number}".encode())
            except ObjectExists:
                return None
            return number

        with ThreadPoolExecutor(12) as pool:
            winners = [number for number in pool.map(race, range(12)) if number is not None]

        assert len(winners) == 1
        assert store.get("snapshots/race") == f"writer {winners[0]}".encode()

    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [
            (0, 5, b"01234"),
            (3, 4, b"3456"),
            (8, 2, b"89"),
            (8, 10, b"89"),
            (10, 5, b""),
            (50, 5, b""),
            (4, 0, b""),
        ],
    )
    def test_a_range_ends_where_the_object_does(
        self, store: ObjectStore, start: int, length: int, expected: bytes
    ) -> None:
        store.put("ten", b"0123456789")

        assert store.get_range("ten", start, length) == expected

    def test_a_missing_object_says_so(self, store: ObjectStore) -> None:
        store.put("packs/other", b"x")

        for ask in (
            lambda: store.get("packs/none"),
            lambda: store.get_range("packs/none", 0, 3),
            lambda: store.get_range("packs/none", 0, 0),
            lambda: store.size("packs/none"),
            lambda: store.get("packs"),
        ):
            with pytest.raises(ObjectMissing) as caught:
                ask()
            assert "packs" in str(caught.value)
            assert store.address in str(caught.value)

    def test_a_listing_is_complete_and_begins_with_the_prefix(self, store: ObjectStore) -> None:
        everything = ["format.json", "packs/aa/1", "packs/ab/2", "packs-old", "packs.x/3", "p"]
        for number, name in enumerate(everything):
            store.put(name, b"x" * number)

        assert names(store) == sorted(everything)
        assert names(store, "packs") == ["packs-old", "packs.x/3", "packs/aa/1", "packs/ab/2"]
        assert names(store, "packs/") == ["packs/aa/1", "packs/ab/2"]
        assert names(store, "packs/a") == ["packs/aa/1", "packs/ab/2"]
        assert names(store, "packs/aa/1") == ["packs/aa/1"]
        assert names(store, "packs/aa/1/") == []
        assert names(store, "none/") == []
        assert {info.name: info.size for info in store.list("")} == {
            name: number for number, name in enumerate(everything)
        }

    def test_a_listing_goes_on_over_many_pages(self, store: ObjectStore) -> None:
        expected = [f"index/{number:04}" for number in range(self.many)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: store.put(name, b""), expected))

        listed = [info.name for info in store.list("index/")]

        assert sorted(listed) == expected

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_a_name_that_no_object_has_is_refused(self, store: ObjectStore, name: str) -> None:
        for ask in (
            lambda: store.put(name, b"x"),
            lambda: store.replace(name, b"x"),
            lambda: store.delete(name),
            lambda: store.get(name),
            lambda: store.get_range(name, 0, 1),
            lambda: store.size(name),
        ):
            with pytest.raises(InvalidName):
                ask()
        assert names(store) == []

    @pytest.mark.parametrize("prefix", ["../", "/", "packs/../", "packs//", "PACKS", ".", "\0"])
    def test_a_prefix_that_no_object_has_is_refused(self, store: ObjectStore, prefix: str) -> None:
        with pytest.raises(InvalidName):
            list(store.list(prefix))

    def test_creating_it_again_leaves_it_as_it_is(self, store: ObjectStore) -> None:
        store.put("a", b"kept")

        store.create()

        assert names(store) == ["a"]
        assert store.get("a") == b"kept"

    def test_some_upload_suits_it(self, store: ObjectStore) -> None:
        assert 1 <= store.parallel <= 16

    def test_threads_share_a_store(self, store: ObjectStore) -> None:
        def work(number: int) -> tuple[bytes, bytes]:
            name = f"packs/{number % 4}/{number}"
            store.put(name, b"number %d" % number)
            return store.get(name), store.get_range(name, 7, 5)

        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(work, range(40)))

        assert read == [(b"number %d" % number, b"%d" % number) for number in range(40)]
        assert len(names(store, "packs/")) == 40


def raised(store: ObjectStore, name: str) -> dict[str, type[KryonixError] | None]:
    """What each method raises for an object of that name."""
    asks: dict[str, Callable[[], object]] = {
        "put": lambda: store.put(name, b"x"),
        "get": lambda: store.get(name),
        "get_range": lambda: store.get_range(name, 0, 1),
        "size": lambda: store.size(name),
        "list": lambda: list(store.list("")),
    }
    found: dict[str, type[KryonixError] | None] = {}
    for method, ask in asks.items():
        try:
            ask()
        except KryonixError as error:
            found[method] = type(error)
        else:
            found[method] = None
    return found
