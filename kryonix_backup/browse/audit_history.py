"""Reading the audit chain from its end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from kryonix_backup.errors import Damaged
from kryonix_backup.repository.audit import AuditBook
from kryonix_backup.repository.audit_record import BUNDLED, AuditRecord, SignedRecord
from kryonix_backup.repository.layout import audit_name

log = logging.getLogger(__name__)


class ShownRecord(NamedTuple):
    """A record, and what an auditor needs to check it without keys of the tenant."""

    record: AuditRecord
    signed: SignedRecord

    def to_plain(self) -> dict[str, Any]:
        """
        The record as the command prints it with --json.

        Its hash is of the other fields as JSON, sorted and without spaces.
        """
        return {
            **self.record.to_plain(),
            "hash": self.signed.hash.hex(),
            "signature": self.signed.signature.hex(),
            "public_key": self.signed.public.hex(),
        }


def newest_records(
    book: AuditBook, limit: int, since: datetime | None, action: str | None
) -> list[ShownRecord]:
    """
    The newest records of that action since that time, oldest first; at most ``limit``.

    A record that cannot be read is passed over with a warning: `verify_audit` says what it is.
    """
    found: list[ShownRecord] = []
    for block in _blocks(book):
        newer = False
        for shown in block:
            in_time = since is None or shown.record.deed.time >= since
            newer = newer or in_time
            if in_time and action in (None, shown.record.deed.action) and len(found) < limit:
                found.append(shown)
        # Writers' clocks differ, but hardly by as much as a whole block.
        if len(found) == limit or not newer:
            break
    return found[::-1]


def _blocks(book: AuditBook) -> Iterator[list[ShownRecord]]:
    """Runs of records, newest first."""
    names = book.names()
    for last in reversed(names.blocks):
        singles = [each for each in range(last, last - BUNDLED, -1) if each in names.singles]
        signed = _singles(book, singles)
        if last in names.bundles:
            signed = _bundle(book, last) or signed
        if block := list(_shown(signed)):
            yield block


def _bundle(book: AuditBook, last: int) -> list[SignedRecord]:
    try:
        return list(book.bundle(last).values())[::-1]
    except Damaged as error:
        log.warning("passed over: %s", error.message)
        return []


def _singles(book: AuditBook, sequences: list[int]) -> list[SignedRecord]:
    found = []
    for sequence, sealed in book.raw_singles(sequences):
        try:
            found.append(book.opened(audit_name(sequence), sealed))
        except Damaged as error:
            log.warning("passed over an audit record: %s", error.message)
    return found


def _shown(signed: list[SignedRecord]) -> Iterator[ShownRecord]:
    for each in signed:
        try:
            yield ShownRecord(each.record(), each)
        except ValueError:
            log.warning("passed over an audit record that has the wrong form")
