from __future__ import annotations

from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.postgres.physical.tally import Tally


def tallied(*rows: tuple[bytes, int | None]) -> Tally:
    tally = Tally()
    for path, entries in rows:
        meta = {} if entries is None else {"entries": entries}
        tally.add(Entry(path, EntryKind.FILE, 0, meta=meta))
    return tally


def test_a_full_backup_and_what_was_made_on_top_of_it_are_whole() -> None:
    found = tallied(
        (b"full", None), (b"full/backup_manifest", 3), (b"full/base", None),
        (b"incremental-001", None), (b"incremental-001/backup_manifest", 2),
    )  # fmt: skip

    assert found.whole
    assert found.names == [b"full", b"incremental-001"]
    assert [meta["entries"] for meta in found.metas] == [3, 2]


def test_what_lacks_anything_is_not() -> None:
    assert not tallied().whole
    assert not tallied((b"full", None), (b"full/backup_manifest", 3)).whole
    assert not tallied((b"full", None), (b"full/base", None)).whole
    assert not tallied((b"incremental-001", None), (b"incremental-001/backup_manifest", 2)).whole
    assert not tallied((b"full/backup_manifest", 1), (b"incremental-002/backup_manifest", 1)).whole
    assert not tallied((b"data/orders", None)).whole
