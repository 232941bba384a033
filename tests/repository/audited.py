"""Chains of audit records for tests."""

from __future__ import annotations

from kryonix_backup.model import TenantId
from kryonix_backup.repository.audit import AuditBook
from kryonix_backup.repository.audit_record import Deed, Head, Origin
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.repositories import ACME, RecordingStore, new_repository

ORIGIN = Origin("ana", "root", "host-1", 42, "kryonix", reason="ticket 4711")


def deed(action: str = "backup", *, accepts: tuple[tuple[int, int], ...] = ()) -> Deed:
    now = FixedClock().now()
    return Deed(now, action, "20261123t214005z-0000000000000000", "ok", ORIGIN, accepts)


def new_book(tenant: TenantId = ACME) -> tuple[RecordingStore, AuditBook]:
    """A store with an empty chain."""
    store = RecordingStore()
    return store, new_repository(store, tenant).audit()


def grow(book: AuditBook, count: int, seen: Head | None = None) -> Head:
    """The head after so many more records."""
    head = seen or book.head()
    for _ in range(count):
        head = book.append(deed(), head)
    return head
