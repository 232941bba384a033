"""Objects under other names than theirs; `test_verify_audit` moves them in every way."""

from __future__ import annotations

from kryonix_backup.errors import Damaged
from kryonix_backup.maintenance.audit_report import CHANGED, INSERTED, MOVED, Finding
from kryonix_backup.maintenance.misplaced import Misplaced
from kryonix_backup.repository.layout import audit_name
from tests.repository.audited import grow, new_book


def found(moves: dict[int, int | None]) -> list[Finding]:
    """Of ten records, where each of these numbers holds that one, or rubbish."""
    store, book = new_book()
    grow(book, 10)
    misplaced = Misplaced(book, book.names())
    for place, origin in moves.items():
        sealed = b"rubbish" if origin is None else store.objects[audit_name(origin)]
        misplaced.add(audit_name(place), place, place, sealed, Damaged("it does not open"))
    return misplaced.findings()


def test_what_opens_nowhere_was_changed() -> None:
    assert found({3: None}) == [Finding(CHANGED, 3, 3, "it does not open")]


def test_what_is_also_at_its_own_place_was_inserted() -> None:
    assert found({3: 9})[0].kind == INSERTED


def test_what_was_moved_alike_is_one_finding() -> None:
    moved = found({5: 4, 6: 5, 7: 6, 9: 10, 4: None})

    assert [(each.kind, each.first, each.last) for each in moved] == [
        (CHANGED, 4, 4), (MOVED, 5, 7), (INSERTED, 9, 9),
    ]  # fmt: skip
    assert "records 4 to 6" in moved[1].reason
