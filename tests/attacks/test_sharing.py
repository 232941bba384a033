"""
Two tenants with the same files: nothing in storage says so.

What does show are names, which are random or keyed, sizes and times; `docs/isolation.md` says what
they reveal.
"""

from __future__ import annotations

import pytest

from kryonix_backup.settings import PRIMARY
from tests.attacks.conftest import Town
from tests.attacks.town import of_kind, windows

pytestmark = pytest.mark.service

SEALED = ("packs/", "index/", "snapshots/")
BLOCK = 16  # of AES


def sealed(objects: dict[str, bytes]) -> dict[str, bytes]:
    return {name: body for kind in SEALED for name, body in of_kind(objects, kind).items()}


def test_no_name_and_no_block_is_shared(town: Town) -> None:
    a, b = sealed(town.a.whole[PRIMARY]), sealed(town.b.whole[PRIMARY])
    assert {name.partition("/")[0] for name in a} == {"packs", "index", "snapshots"}
    parts = [{part for name in each for part in name.split("/")[1:] if len(part) > 2}
             for each in (a, b)]  # fmt: skip

    assert not parts[0] & parts[1]
    blocks = {block for body in a.values() for block in windows(body, BLOCK, 1)}
    shared = [block for body in b.values() for block in windows(body, BLOCK, 1) if block in blocks]
    # A header begins with a few bytes that say what the object is; the salt after them is random.
    assert not shared


def test_the_same_chunks_have_other_names(town: Town) -> None:
    ids = [{chunk for chunk, _ in each.client().repository.load_index()} for each in town]

    assert ids[0]
    assert not ids[0] & ids[1]


def test_what_is_stored_holds_no_word_of_a_file(town: Town) -> None:
    words = (b"both have this", b"told to nobody else", b"secret", b"/files-")

    for tenant in town:
        for name, body in sealed(tenant.whole[PRIMARY]).items():
            assert not [word for word in words if word in body], name


def test_one_tenant_finds_nothing_of_another_to_store_less(town: Town) -> None:
    """Deduplication never crosses tenants: it would tell that another one has the file."""
    for tenant in town:
        (docs,) = tenant.first.snapshot.sources.values()
        assert docs.chunks_new == docs.chunks
        assert docs.bytes_new >= docs.bytes_total
