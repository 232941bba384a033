from __future__ import annotations

from kryonix_backup.model import Entry, EntryKind
from kryonix_backup.sources.postgres.physical.tally import Tally


def tallied(*rows: tuple[bytes, tuple[int, int] | None]) -> Tally:
    tally = Tally()
    for path, known in rows:
        meta = {} if known is None else {"number": known[0], "entries": known[1]}
        tally.add(Entry(path, EntryKind.FILE, 0, meta=meta))
    return tally


def test_a_full_backup_and_what_was_made_on_top_of_it_are_whole() -> None:
    found = tallied(
        (b"full", None), (b"full/backup_manifest", (0, 3)), (b"full/base", None),
        (b"incremental-000002", None), (b"incremental-000002/backup_manifest", (2, 2)),
        (b"incremental-000003/backup_manifest", (3, 1)),
    )  # fmt: skip

    assert found.whole
    assert found.names == [b"full", b"incremental-000002", b"incremental-000003"]
    assert list(found.counts.values()) == [3, 2, 1]


def test_what_lacks_anything_is_not() -> None:
    full = (b"full/backup_manifest", (0, 1))
    assert not tallied().whole
    assert not tallied((b"full", None), (b"full/backup_manifest", (0, 3))).whole
    assert not tallied((b"full", None), (b"full/base", None)).whole
    assert not tallied((b"incremental-000001/backup_manifest", (1, 1))).whole
    assert not tallied(full, (b"incremental-000003/backup_manifest", (3, 1))).whole
    assert not tallied(full, (b"incremental-000002/backup_manifest", (1, 1))).whole
    assert not tallied((b"data/orders", None)).whole
