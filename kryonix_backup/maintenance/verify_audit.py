"""
Proving that the audit chain is what was written, and saying where it is not.

Every object of the chain is read. Each record must open under its own name, hold the hash of the
record before it, and be signed where its signature is needed: at the head, at the end of each
bundle, wherever it stands alone, and where the record before it cannot vouch for it. One signature
covers everything before it by the hashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kryonix_backup.clock import Clock
from kryonix_backup.errors import Damaged
from kryonix_backup.maintenance.audit_report import (
    CHANGED,
    MISSING,
    ROLLED_BACK,
    AuditReport,
    Finding,
)
from kryonix_backup.maintenance.misplaced import Misplaced
from kryonix_backup.repository.audit import AuditBook, AuditNames
from kryonix_backup.repository.audit_record import BUNDLED, AuditRecord, Head, SignedRecord
from kryonix_backup.repository.layout import audit_bundle_name, audit_name

EMPTIED = "there is no record, and {} snapshots are there, each of which was recorded"
NO_RECORD = "there is no record; whether there ever was one cannot be known here"
NOT_SEEN = (
    "this machine has not seen this chain before: records that were removed from its end cannot be"
    " noticed here, only where an anchor is"
)


def verify_audit(
    book: AuditBook, seen: Head | None, clock: Clock, snapshots: int = 0
) -> AuditReport:
    """
    Read the whole chain.

    ``seen`` is a record that this machine knows to have been there; ``snapshots`` is how many are
    there: none is without a record, unless the chain has been taken away.
    """
    started = clock.monotonic()
    found = _Verification(book, seen).run()
    if snapshots and not found.records and not found.findings and len(book.trusted) > 1:
        # Repositories from before the chain have no audit key of their own.
        found.findings.append(Finding(MISSING, 0, 0, EMPTIED.format(snapshots)))
    remarks = [] if found.records else [NO_RECORD]
    if seen is None:
        remarks.append(NOT_SEEN)
    return AuditReport(
        book.signer.public.hex(),
        found.records,
        found.bundles,
        found.signatures,
        found.head,
        found.times[0] if found.times else None,
        found.times[-1] if found.times else None,
        tuple(found.findings),
        tuple(found.accepted),
        tuple(remarks),
        round(clock.monotonic() - started, 3),
    )


class _Block(NamedTuple):
    """A run of records: those that stand together, and those that stand alone."""

    bundled: Mapping[int, SignedRecord]
    singles: Mapping[int, SignedRecord]
    spoilt: set[int]
    """Numbers that a finding stands for already."""


@dataclass(slots=True)
class _Verification:
    """One reading of a chain, in the order of its numbers."""

    book: AuditBook
    seen: Head | None
    records: int = 0
    bundles: int = 0
    signatures: int = 0
    times: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    accepted: list[Finding] = field(default_factory=list)
    _before: Head | None = None
    _head: Head | None = None
    _accepts: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def head(self) -> Head:
        """The last whole record."""
        return self._head or self.book.start

    def run(self) -> _Verification:
        """Read everything."""
        names = self.book.names()
        misplaced = Misplaced(self.book, names)
        self._before = self.book.start
        newest, before = names.newest, 0
        for last in names.blocks:
            first = last - BUNDLED + 1
            if first > before + 1:  # as many as a name can count: none of them is looked for
                self._miss(before + 1, first - 1)
            block = self._block(last, names, misplaced)
            for sequence in range(first, min(last, newest) + 1):
                self._step(sequence, block, newest=newest)
            before = last
        self.findings += misplaced.findings()
        self.findings += (Finding.stray(name) for name in names.strays)
        self._look_back(names)
        self._settle()
        return self

    def _block(self, last: int, names: AuditNames, misplaced: Misplaced) -> _Block:
        block = _Block({}, {}, set())
        numbers = range(last - BUNDLED + 1, last + 1)
        if last in names.bundles:
            self.bundles += 1
            try:
                block = block._replace(bundled=self.book.bundle(last))
            except Damaged as error:
                name = audit_bundle_name(last)
                misplaced.add(name, numbers[0], last, self.book.store.get(name), error)
                block.spoilt.update(numbers)
        singles = {}
        for sequence, sealed in self.book.raw_singles(
            each for each in numbers if each in names.singles
        ):
            name = audit_name(sequence)
            try:
                singles[sequence] = self.book.opened(name, sealed)
            except Damaged as error:
                misplaced.add(name, sequence, sequence, sealed, error)
                block.spoilt.add(sequence)
        return block._replace(singles=singles)

    def _step(self, sequence: int, block: _Block, *, newest: int) -> None:
        bundled, single = block.bundled.get(sequence), block.singles.get(sequence)
        if bundled and single and bundled != single:
            self._find(CHANGED, sequence, "it is not what its bundle holds")
        signed = bundled or single
        if signed is None:
            if sequence not in block.spoilt:
                self._miss(sequence, sequence)
            self._before = None
            return
        try:
            record = signed.record()
        except ValueError:
            self._find(CHANGED, sequence, "it has not the form of a record")
            self._before = None
            return
        self.records += 1
        self._link(sequence, record)
        vouched = bundled is not None and self._before is not None
        self._before = self._head = Head(sequence, signed.hash)
        if not vouched or sequence % BUNDLED == 0 or sequence == newest:
            self._check_signature(sequence, signed)
        self._accepts += ((first, last, sequence) for first, last in record.deed.accepts)
        moment = record.deed.time.isoformat()
        self.times = [*self.times[:1], moment]

    def _link(self, sequence: int, record: AuditRecord) -> None:
        if record.sequence != sequence:
            self._find(CHANGED, sequence, f"it says that it is record {record.sequence}")
        elif self._before is not None and record.previous != self._before.hash:
            self._find(CHANGED, sequence, f"it does not follow record {sequence - 1} that is there")

    def _check_signature(self, sequence: int, signed: SignedRecord) -> None:
        self.signatures += 1
        if not signed.is_signed_by(self.book.trusted):
            self._find(CHANGED, sequence, "it is not signed by this tenant's audit key")

    def _miss(self, first: int, last: int) -> None:
        self._find(MISSING, first, "there is no such record, and later ones are there", last)
        self._before = None

    def _find(self, kind: str, first: int, reason: str, last: int | None = None) -> None:
        found = Finding(kind, first, last or first, reason)
        before = self.findings[-1] if self.findings else None
        if before and (before.kind, before.last, before.reason) == (kind, first - 1, reason):
            self.findings[-1] = before._replace(last=found.last)
        else:
            self.findings.append(found)

    def _look_back(self, names: AuditNames) -> None:
        """Hold the chain against what this machine has seen of it."""
        if self.seen is None:
            return
        if names.newest < self.seen.sequence:
            reason = "this machine has seen these records; the repository was set back"
            lost = Finding(ROLLED_BACK, names.newest + 1, self.seen.sequence, reason)
            self.findings.append(lost)
        elif self._is_another():
            reason = "this machine has seen another record; the repository was set back"
            self.findings.append(Finding(ROLLED_BACK, self.seen[0], self.seen[0], reason))

    def _is_another(self) -> bool:
        assert self.seen is not None
        if any(each.covers(self.seen.sequence) for each in self.findings):
            return False  # it is told of already
        return self.book.read(self.seen.sequence).hash != self.seen.hash

    def _settle(self) -> None:
        """Set apart what was accepted by a later record, after an inquiry."""
        self.findings.sort(key=lambda each: (each.first, each.last))
        self.accepted = [each for each in self.findings if self._is_accepted(each)]
        self.findings = [each for each in self.findings if each not in self.accepted]

    def _is_accepted(self, finding: Finding) -> bool:
        return finding.kind != ROLLED_BACK and any(self._accepting(finding))

    def _accepting(self, finding: Finding) -> Iterator[bool]:
        for first, last, by in self._accepts:
            yield first <= finding.first and finding.last <= last < by
