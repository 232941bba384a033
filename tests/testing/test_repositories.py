"""The builders of tests make what they say."""

from __future__ import annotations

from kryonix_backup.testing.repositories import (
    RecordingStore,
    back_up,
    new_repository,
    reopened,
    settings_of,
)
from kryonix_backup.testing.sources import MemorySource, Thing


def test_a_recording_store_remembers_the_order_and_copies_apart() -> None:
    store = RecordingStore()
    store.put("b/2", b"2")
    store.put("a/1", b"1")

    copy = store.copy()
    del copy.objects["a/1"]

    assert store.puts == ["b/2", "a/1"]
    assert (store.names(), store.names("b/")) == (["a/1", "b/2"], ["b/2"])
    assert copy.names() == ["b/2"]


def test_a_repository_is_backed_up_to_and_opened_again() -> None:
    repository = new_repository()

    report = back_up(repository, MemorySource({b"a": Thing(b"x")}), name="files")

    assert reopened(repository.store).snapshot_ids() == [report.snapshot.id]
    assert [source.url for source in settings_of("a", "b").sources] == ["memory://a", "memory://b"]
