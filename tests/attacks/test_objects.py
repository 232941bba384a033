"""
B's objects in A's bucket, in every disguise: A's restore is A's own, or fails and names the object.

The thief may write A's bucket as A itself, holds A's keys, and has read all of B's objects.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kryonix_backup.crypto.seal import Kind, seal_object
from kryonix_backup.errors import Damaged, KeyRefused, KryonixError
from kryonix_backup.model import ChunkId, PackId, RegionName, SnapshotId
from kryonix_backup.repository.codec import compressor
from kryonix_backup.repository.index import Index, Segment
from kryonix_backup.repository.pack import Place
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.writer import pack_plain
from kryonix_backup.settings import PRIMARY
from tests.attacks.conftest import Town
from tests.attacks.town import REGIONS, content, of_kind

pytestmark = pytest.mark.service

KINDS = ["snapshots/", "index/", "packs/", "keys/"]


def prove(town: Town, out: Path, named: str | None = None, snapshot: str = "latest") -> None:
    """
    A's restore is what A saved, or a typed error that names the object; B's data is nowhere.

    With ``named`` a verification names it in any case.
    """
    error = town.a.restored(out, snapshot)
    came = content(out)
    assert not [path for path, body in came.items() if town.b.secret in body]
    if error is None:
        assert came == content(town.a.files)
    else:
        assert isinstance(error, Damaged | KeyRefused), error
        assert any(
            kind.rstrip("/") in error.message for kind in (*KINDS, "format.json", "chunk ")
        ), error
        assert came == {}
        assert town.b.secret not in str(error).encode()
    if named is not None:
        assert any(named in each for each in town.a.told()), town.a.told()


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_under_their_own_names(town: Town, kind: str, region: RegionName, tmp_path: Path) -> None:
    objects = of_kind(town.b.whole[region], kind)
    town.a.plant(
        {name: body for name, body in objects.items() if name not in town.a.whole[PRIMARY]}
    )

    prove(town, tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_under_the_names_of_as_own(town: Town, kind: str, tmp_path: Path) -> None:
    own = sorted(of_kind(town.a.whole[PRIMARY], kind))
    theirs = [town.b.whole[PRIMARY][name] for name in sorted(of_kind(town.b.whole[PRIMARY], kind))]
    town.a.plant(dict(zip(own, theirs, strict=False)))

    prove(town, tmp_path / "out", named=kind.rstrip("/"))


@pytest.mark.parametrize("kind", ["snapshots/", "packs/", "index/"])
def test_as_own_objects_swapped_with_each_other(town: Town, kind: str, tmp_path: Path) -> None:
    one, *_, other = sorted(of_kind(town.a.whole[PRIMARY], kind))
    whole = town.a.whole[PRIMARY]
    town.a.plant({one: whole[other], other: whole[one]})

    prove(town, tmp_path / "out", named=one)


def test_the_whole_of_b_in_the_place_of_a(town: Town) -> None:
    for name in town.a.objects():
        town.a.store().delete(name)
    town.a.plant(town.b.whole[PRIMARY])

    with pytest.raises(KeyRefused, match="not the repository of acme"):
        town.a.client().snapshots()


def test_the_name_of_bs_repository_on_as_objects(town: Town, tmp_path: Path) -> None:
    town.a.plant({"format.json": town.b.whole[PRIMARY]["format.json"]})

    prove(town, tmp_path / "out")
    assert isinstance(town.a.restored(tmp_path / "again"), Damaged)


def test_an_older_state_of_one_object_is_not_a_newer_one(town: Town, tmp_path: Path) -> None:
    """The first snapshot's manifest in the place of the second, and under a later name."""
    first, second = town.a.first.snapshot.id, town.a.second.snapshot.id
    old = town.a.whole[PRIMARY][f"snapshots/{first}"]
    later = f"snapshots/20991231t235959z{first[16:]}"
    for name in (f"snapshots/{second}", later):
        town.a.plant({name: old})

        prove(town, tmp_path / name, named=name)
        town.a.mend()


# ---------------------------------------------------------------------- forged with A's own keys


def test_a_forged_index_leads_to_bs_packs_and_no_further(town: Town, tmp_path: Path) -> None:
    """A's index, sealed by A's keys, says that A's chunks are in B's packs, copied beside them."""
    mine, theirs = town.a.client().repository, town.b.client().repository
    town.a.plant(of_kind(town.b.whole[PRIMARY], "packs/"))
    found = list(theirs.load_index())
    packs = {place.pack.id: place.pack for _, place in found}
    chunks = [chunk for chunk, _ in mine.load_index()]
    places = [place for _, place in found]
    pairs = list(zip(chunks * 9, places, strict=False))
    rows = [
        (packs[pack], [(chunk, each.place) for chunk, each in pairs if each.pack.id == pack])
        for pack in packs
    ]
    for name in of_kind(town.a.whole[PRIMARY], "index/"):
        town.a.store().delete(name)
    town.a.plant(dict([forged(mine, Kind.INDEX, "index/" + "0" * 32, Segment.of(rows).to_bytes())]))

    prove(town, tmp_path / "out")


def test_bs_chunks_are_not_opened_by_as_reader(town: Town) -> None:
    """Whatever A's index says: asked for B's chunk by its name, A's repository refuses it."""
    mine, theirs = town.a.client().repository, town.b.client().repository
    town.a.plant(of_kind(town.b.whole[PRIMARY], "packs/"))
    index: Index = theirs.load_index()
    grouped: dict[PackId, list[tuple[ChunkId, Place]]] = {}
    for chunk, place in index:
        grouped.setdefault(place.pack.id, []).append((chunk, place.place))
    rows = [(index.packs()[pack], chunks) for pack, chunks in grouped.items()]
    town.a.plant(dict([forged(mine, Kind.INDEX, "index/" + "1" * 32,
                              Segment.of(rows).to_bytes())]))  # fmt: skip
    reader = town.a.client().repository.reader()

    for chunk, place in index:
        with pytest.raises(Damaged, match="packs/") as caught:
            reader.read(chunk)
        assert place.pack.id in caught.value.message


def test_bs_tree_spliced_into_as_snapshot(town: Town, tmp_path: Path) -> None:
    """A manifest of A, sealed by A's keys, that names the roots of B's trees."""
    theirs = town.b.second.snapshot
    spliced = replace(
        town.a.second.snapshot,
        id=SnapshotId("20991231t235959z-" + "0" * 16),
        sources=theirs.sources,
    )
    town.a.plant(of_kind(town.b.whole[PRIMARY], "packs/"))
    town.a.client().repository.publish(spliced)

    error = town.a.restored(tmp_path / "out")

    assert isinstance(error, KryonixError), "a restore of it fails"
    assert not content(tmp_path / "out")
    assert town.a.restored(tmp_path / "before", town.a.second.snapshot.id) is None
    assert content(tmp_path / "before") == content(town.a.files)


def test_a_manifest_of_b_that_calls_itself_as(town: Town, tmp_path: Path) -> None:
    """B's manifest, sealed by A's keys, with B's tenant in it."""
    foreign = town.b.second.snapshot
    town.a.client().repository.publish(foreign)

    with pytest.raises(Damaged, match=f"snapshots/{foreign.id}"):
        town.a.client().snapshot(foreign.id)
    prove(
        town, tmp_path / "out", named=f"snapshots/{foreign.id}", snapshot=town.a.second.snapshot.id
    )


def forged(repository: Repository, kind: Kind, name: str, plain: bytes) -> tuple[str, bytes]:
    """An object as its owner would seal it."""
    body = pack_plain(compressor("zstd:3"), plain)
    return name, seal_object(kind, name, body, repository._keys, repository.id)
