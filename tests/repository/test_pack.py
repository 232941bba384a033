"""A pack gives back what was put into it, or says where it was hurt."""

from __future__ import annotations

import itertools
from mmap import mmap
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis.strategies import binary, lists, sampled_from

from kryonix_backup.crypto.keys import KeyRecord, Purpose, TenantKeys
from kryonix_backup.crypto.naming import ChunkNamer
from kryonix_backup.crypto.seal import HEADER_BYTES, Header, Kind, Sealer
from kryonix_backup.errors import Damaged, FormatUnsupported
from kryonix_backup.model import KIB, MIB, ChunkId, KeyId, RepositoryId
from kryonix_backup.repository.codec import Codec, compressor
from kryonix_backup.repository.layout import pack_name
from kryonix_backup.repository.pack import (
    MAX_FRAME_BYTES,
    ClosedPack,
    Frame,
    PackWriter,
    Place,
    open_frame,
    pack_id,
    parse_directory,
    read_directory,
)
from kryonix_backup.settings import Secret
from kryonix_backup.testing.clock import NOON
from kryonix_backup.testing.repositories import RecordingStore

REPOSITORY = RepositoryId("0123456789abcdef" * 2)
KEYS = TenantKeys(
    [
        KeyRecord(KeyId("01" * 16), Purpose.DATA, 1, NOON, Secret(bytes(range(32)))),
        KeyRecord(KeyId("02" * 16), Purpose.ID, 1, NOON, Secret(bytes(32))),
    ]
)
NAMER = ChunkNamer(KEYS.id_key)
FRAMES = [[b"one", b"two" * 50], [b"three" * 400], [b""]]


def _written(
    frames: list[list[bytes]], setting: str = "adaptive", repository: RepositoryId = REPOSITORY
) -> ClosedPack:
    writer = PackWriter(Kind.DATA_PACK, mmap(-1, 256 * KIB), KEYS, repository)
    for chunks in frames:
        raw = b"".join(chunks)
        codec, packed = compressor(setting)(raw)
        writer.add(codec, packed, len(raw), [(NAMER(chunk), len(chunk)) for chunk in chunks])
    return writer.close()


def _stored(body: bytes) -> tuple[RecordingStore, str]:
    store = RecordingStore()
    name = pack_name(pack_id(body))
    store.put(name, body)
    return store, name


def _contents(body: bytes, places: list[tuple[ChunkId, Place]]) -> list[tuple[ChunkId, bytes]]:
    found = []
    for chunk, place in places:
        frame = place.frame
        raw = open_frame(
            _sealer(body), frame, body[frame.offset : frame.offset + frame.sealed], "a pack"
        )
        found.append((chunk, bytes(raw[place.start : place.start + place.length])))
    return found


def _sealer(body: bytes, repository: RepositoryId = REPOSITORY) -> Sealer:
    return Sealer(Header.from_bytes(body, "a pack"), KEYS, repository, "pack")


@settings(max_examples=60)
@given(
    frames=lists(lists(binary(max_size=300), max_size=6), max_size=6),
    setting=sampled_from(["store", "zstd:3", "brotli:4", "adaptive"]),
)
def test_what_was_put_in_is_read_by_the_directory_alone(
    frames: list[list[bytes]], setting: str
) -> None:
    pack = _written(frames, setting)
    body = bytes(pack.body)
    store, name = _stored(body)

    info, places = read_directory(store, name, pack.info.id, len(body), KEYS, REPOSITORY)

    assert info == pack.info
    assert places == pack.chunks == parse_directory(pack.body, name, KEYS, REPOSITORY)
    assert _contents(body, places) == [
        (NAMER(chunk), chunk) for chunk in itertools.chain.from_iterable(frames)
    ]


def test_a_pack_is_named_by_its_own_bytes() -> None:
    pack = _written(FRAMES)

    assert pack.info.id == blake3(bytes(pack.body)).hexdigest()
    assert pack_name(pack.info.id) == f"packs/{pack.info.id[:2]}/{pack.info.id}"


def test_two_packs_of_the_same_chunks_share_no_sealed_bytes() -> None:
    one, two = (bytes(_written(FRAMES).body) for _ in range(2))

    assert one[HEADER_BYTES:-24] != two[HEADER_BYTES:-24]
    assert pack_id(one) != pack_id(two)


def test_every_changed_byte_of_its_ends_or_its_directory_is_noticed() -> None:
    pack = _written(FRAMES)
    body = bytes(pack.body)
    frames_end = max(place.frame.offset + place.frame.sealed for _, place in pack.chunks)

    for at in [*range(HEADER_BYTES), *range(frames_end, len(body))]:
        changed = bytearray(body)
        changed[at] ^= 1
        store, name = _stored(bytes(changed))
        with pytest.raises((Damaged, FormatUnsupported)):
            read_directory(store, name, pack.info.id, len(body), KEYS, REPOSITORY)
        with pytest.raises((Damaged, FormatUnsupported)):
            parse_directory(memoryview(changed), name, KEYS, REPOSITORY)


def test_every_cut_and_every_tail_is_noticed() -> None:
    body = bytes(_written(FRAMES).body)
    cuts = [body[:length] for length in range(len(body))]

    for cut in [*cuts, body + b"\0", body + body, body[1:]]:
        store, name = _stored(cut)
        with pytest.raises(Damaged, match=name):
            read_directory(store, name, pack_id(cut), len(cut), KEYS, REPOSITORY)
        with pytest.raises(Damaged, match=name):
            parse_directory(memoryview(cut), name, KEYS, REPOSITORY)


def test_every_changed_byte_of_a_frame_is_noticed() -> None:
    pack = _written([[b"some text " * 10]])
    frame = pack.chunks[0][1].frame
    body = bytes(pack.body)

    for at in range(frame.offset, frame.offset + frame.sealed):
        changed = bytearray(body)
        changed[at] ^= 1
        sealed = changed[frame.offset : frame.offset + frame.sealed]
        with pytest.raises(Damaged, match="here"):
            open_frame(_sealer(body), frame, sealed, "here")


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 57},
        {"raw": 101},
        {"raw": 99},
        {"codec": Codec.STORE},
        {"codec": Codec.BROTLI},
        {"sealed": 1},
        {"raw": MAX_FRAME_BYTES + 1},
        {"raw": (1 << 32) - 1},
    ],
)
def test_a_frame_opens_only_as_it_was_sealed(changes: dict[str, Any]) -> None:
    pack = _written([[b"some text " * 10]], "zstd:3")
    frame = pack.chunks[0][1].frame
    sealed = pack.body[frame.offset : frame.offset + frame.sealed]

    with pytest.raises(Damaged, match="here"):
        open_frame(_sealer(bytes(pack.body)), frame._replace(**changes), sealed, "here")


def test_a_frame_of_another_pack_or_repository_does_not_open() -> None:
    one, two = _written(FRAMES, "store"), _written(FRAMES, "store")
    frame = one.chunks[0][1].frame
    sealed = bytes(one.body[frame.offset : frame.offset + frame.sealed])

    assert open_frame(_sealer(bytes(one.body)), frame, sealed, "here") == b"one" + b"two" * 50
    with pytest.raises(Damaged):
        open_frame(_sealer(bytes(two.body)), frame, sealed, "here")
    with pytest.raises(Damaged):
        open_frame(_sealer(bytes(one.body), RepositoryId("f" * 32)), frame, sealed, "here")


def _with_directory(plain: bytes) -> bytes:
    """A pack whose directory is these bytes, sealed as it should be."""
    buffer = mmap(-1, 64 * KIB)
    writer = PackWriter(Kind.DATA_PACK, buffer, KEYS, REPOSITORY)
    writer._directory = [plain]
    return bytes(writer.close().body)


@pytest.mark.parametrize(
    "plain",
    [
        b"\0",
        bytes(14),
        bytes(12) + b"\x09" + bytes(2),  # an unknown codec
        bytes(12) + b"\0" + b"\xff\xff",  # more chunks than there are
        bytes(12) + b"\0" + b"\0\x01" + bytes(35),
    ],
)
def test_a_directory_in_the_wrong_form_is_damaged(plain: bytes) -> None:
    body = _with_directory(plain)

    with pytest.raises(Damaged, match="packs/x"):
        parse_directory(memoryview(body), "packs/x", KEYS, REPOSITORY)


def test_a_sealed_object_of_another_kind_is_not_a_pack() -> None:
    writer = PackWriter(Kind.SNAPSHOT, mmap(-1, 64 * KIB), KEYS, REPOSITORY)

    with pytest.raises(Damaged, match="not a pack"):
        parse_directory(writer.close().body, "packs/x", KEYS, REPOSITORY)


def test_a_frame_is_refused_before_the_buffer_overflows() -> None:
    writer = PackWriter(Kind.DATA_PACK, mmap(-1, 64 * KIB), KEYS, REPOSITORY)
    added = 0

    while writer.room_for(10 * KIB, 3):
        writer.add(Codec.STORE, bytes(10 * KIB), 10 * KIB, [(NAMER(b""), 0)] * 3)
        added += 1
    pack = writer.close()

    assert added == 6
    assert len(parse_directory(pack.body, "packs/x", KEYS, REPOSITORY)) == 18


def test_a_written_frame_opens_again_at_once() -> None:
    writer = PackWriter(Kind.DATA_PACK, mmap(-1, MIB), KEYS, REPOSITORY)
    raw = b"text " * 1000
    codec, packed = compressor("zstd:3")(raw)

    frame = writer.add(codec, packed, len(raw), [(NAMER(raw), len(raw))])

    assert frame == Frame(HEADER_BYTES, len(packed) + 16, len(raw), Codec.ZSTD)
    assert writer.reopen(frame) == raw
    assert writer.size == HEADER_BYTES + len(packed) + 16
