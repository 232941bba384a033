"""Reading a pack again finds what was hurt in it, and names the chunks."""

from __future__ import annotations

import random

import pytest

from kryonix_backup.errors import StoreUnavailable
from kryonix_backup.model import ChunkId
from kryonix_backup.repository.index import Found
from kryonix_backup.repository.layout import pack_name
from kryonix_backup.repository.pack import PackInfo
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.scrub import Scrubbed
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import RecordingStore, new_repository, reopened


def _filled() -> tuple[RecordingStore, Repository]:
    store = RecordingStore()
    repository = new_repository(store)
    with repository.writer() as writer:
        lane = writer.lane("store")
        for number in range(6):  # a frame each, and a frame of three
            lane.keep([random.Random(number).randbytes(500)])
        lane.keep([b"one", b"two", b"three"])
    return store, repository


def _pack(repository: Repository) -> PackInfo:
    (pack,) = repository.load_index().packs().values()
    return pack


def _changed(store: RecordingStore, name: str, at: int) -> None:
    body = bytearray(store.objects[name])
    body[at] ^= 1
    store.objects[name] = bytes(body)


def _found(repository: Repository) -> list[tuple[ChunkId, Found]]:
    return sorted(repository.load_index(), key=lambda row: row[1].place.frame.offset)


def test_a_sound_pack_has_nothing_wrong() -> None:
    _, repository = _filled()
    pack = _pack(repository)

    assert repository.scrubber()(pack) == Scrubbed(pack, "", frozenset())


def test_only_the_chunks_of_the_frame_that_was_hurt_are_bad() -> None:
    store, repository = _filled()
    pack = _pack(repository)
    chunk, found = _found(repository)[2]
    _changed(store, pack_name(pack.id), found.place.frame.offset + 100)

    scrubbed = repository.scrubber()(pack)

    assert scrubbed.reason == "was changed since it was written"
    assert scrubbed.bad == {chunk}


def test_every_chunk_of_a_shared_frame_is_bad() -> None:
    store, repository = _filled()
    pack = _pack(repository)
    shared = [chunk for chunk, found in _found(repository) if found.place.frame.raw == 11]
    offset = max(found.place.frame.offset for _, found in _found(repository))
    _changed(store, pack_name(pack.id), offset)

    assert repository.scrubber()(pack).bad == set(shared)
    assert len(shared) == 3


@pytest.mark.parametrize("at", [0, 5, 30, -1, -5, -10, -100])
def test_a_pack_whose_ends_were_hurt_has_a_reason(at: int) -> None:
    store, repository = _filled()
    pack = _pack(repository)
    _changed(store, pack_name(pack.id), at)

    assert repository.scrubber()(pack).reason == "was changed since it was written"


@pytest.mark.parametrize("length", [0, 10, 60, 1000])
def test_a_pack_that_was_cut_is_bad_as_a_whole(length: int) -> None:
    store, repository = _filled()
    pack = _pack(repository)
    name = pack_name(pack.id)
    store.objects[name] = store.objects[name][:length]

    scrubbed = repository.scrubber()(pack)

    assert scrubbed.reason
    assert scrubbed.bad == {chunk for chunk, _ in repository.load_index()}


def test_a_missing_pack_is_bad_as_a_whole() -> None:
    store, repository = _filled()
    pack = _pack(repository)
    del store.objects[pack_name(pack.id)]

    scrubbed = repository.scrubber()(pack)

    assert scrubbed.reason == "is missing"
    assert scrubbed.bad == {chunk for chunk, _ in repository.load_index()}


def test_another_pack_under_its_name_is_noticed() -> None:
    store, repository = _filled()
    pack = _pack(repository)
    other = RecordingStore()
    with new_repository(other).writer() as writer:
        writer.lane("store").keep([b"theirs"])
    (theirs,) = other.names("packs/")
    store.objects[pack_name(pack.id)] = other.objects[theirs]

    scrubbed = repository.scrubber()(pack)

    assert scrubbed.reason == "was changed since it was written"
    assert scrubbed.bad == {chunk for chunk, _ in repository.load_index()}


def test_what_the_store_refuses_is_raised() -> None:
    store, _ = _filled()
    broken = reopened(FaultyStore(store, get=[None] * 3 + [StoreUnavailable("gone")]))
    pack = _pack(broken)

    with pytest.raises(StoreUnavailable):
        broken.scrubber()(pack)
