"""
Records of the audit chain, put together a thousand at a time.

A bundle holds the very bytes of its records with their signatures, so that a long chain is read
with few requests. The single records go a thousand records later, when nobody can be about to
write to their numbers; a store that lets nothing be deleted keeps them.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from kryonix_backup.errors import AuditBroken, Damaged, ObjectExists, StoreDenied
from kryonix_backup.repository.audit import AuditBook, AuditNames
from kryonix_backup.repository.audit_record import BUNDLED, SignedRecord, bundle_to_bytes
from kryonix_backup.repository.layout import audit_bundle_name, audit_name

log = logging.getLogger(__name__)

_DELETERS = 16


def consolidate(book: AuditBook) -> None:
    """
    Write every bundle that is missing, and remove the single records that are in an old one.

    May run at once in any number of processes, and be stopped anywhere. Raises AuditBroken where
    records do not follow each other: those stay as they are.
    """
    names = book.names()
    for last in names.blocks:
        if last not in names.bundles and _numbers(last) <= names.singles:
            _write(book, last)
            names.bundles.add(last)
    _clear(book, names)


def _numbers(last: int) -> set[int]:
    return set(range(last - BUNDLED + 1, last + 1))


def _write(book: AuditBook, last: int) -> None:
    records = [
        book.opened(audit_name(sequence), sealed)
        for sequence, sealed in book.raw_singles(sorted(_numbers(last)))
    ]
    if len(records) != BUNDLED or not _is_chain(records, last):
        raise AuditBroken(f"the audit records up to {last} do not follow each other")
    name = audit_bundle_name(last)
    try:
        book.store.put(name, book.seal(name, bundle_to_bytes(records)))
    except ObjectExists:
        log.info("%s was written by another", name)
    if list(book.bundle(last).values()) != records:
        raise AuditBroken(f"{name} does not hold the records that stand beside it")


def _is_chain(records: list[SignedRecord], last: int) -> bool:
    try:
        plain = [each.record() for each in records]
    except ValueError:
        return False
    follow = all(
        after.previous == signed.hash for signed, after in zip(records[:-1], plain[1:], strict=True)
    )
    numbered = all(after.sequence == before.sequence + 1 for before, after in pairwise(plain))
    return follow and numbered and plain[-1].sequence == last


def _clear(book: AuditBook, names: AuditNames) -> None:
    """Remove the singles of every bundle that another bundle follows."""
    for last in sorted(names.bundles):
        singles = sorted(_numbers(last) & names.singles)
        if not singles or last + BUNDLED not in names.bundles:
            continue
        try:
            book.bundle(last)  # or Damaged: then they are all that is left
            with ThreadPoolExecutor(_DELETERS, thread_name_prefix="audit") as pool:
                list(pool.map(lambda each: book.store.delete(audit_name(each)), singles))
        except StoreDenied as error:
            log.info("the single audit records up to %d stay: %s", last, error.message)
            return
        except Damaged as error:
            log.warning("the single audit records up to %d stay: %s", last, error.message)
