"""
The audit chain of one tenant: numbered records that are never changed.

A record's name is its number, created only where it is free: of several writers one gets the
number, and the others read on and take the next. There is no lock, and one small object is one
record: a crash leaves it whole or not at all. Bundles of records (see `audit_bundle`) only make
reading cheap.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from kryonix_backup.crypto.keys import Owner, TenantKeys
from kryonix_backup.crypto.seal import Kind
from kryonix_backup.crypto.signing import Signer
from kryonix_backup.errors import (
    AuditBroken,
    Damaged,
    FormatUnsupported,
    KeyUnusable,
    ObjectExists,
    ObjectMissing,
    RolledBack,
)
from kryonix_backup.repository.audit_record import (
    BUNDLED,
    AuditRecord,
    Deed,
    Head,
    SignedRecord,
    bundle_from_bytes,
    genesis,
)
from kryonix_backup.repository.layout import AUDIT, audit_bundle_name, audit_name
from kryonix_backup.repository.sealed import open_content, seal_content
from kryonix_backup.storage.store import ObjectStore

log = logging.getLogger(__name__)

_NAME = re.compile(r"audit/(bundles/)?(\d{12})", re.ASCII)
_LAST = 10**11  # far more than are ever written, and as many digits as there are in a name
_STEPS = 8  # records of others that are read one by one, before the newest is looked for
_READERS = 16


class AuditNames(NamedTuple):
    """What is there: numbers of single records, last numbers of bundles, and what is neither."""

    singles: set[int]
    bundles: set[int]
    strays: list[str]

    @property
    def newest(self) -> int:
        """The greatest number of a record that is there; 0 where there is none."""
        return max(self.singles | self.bundles, default=0)

    @property
    def blocks(self) -> list[int]:
        """The last numbers of all runs of `BUNDLED` that anything is in, in order."""
        return sorted({-(-each // BUNDLED) * BUNDLED for each in self.singles | self.bundles})

    def first_after(self, sequence: int) -> int:
        """The least number greater than this one of a record that is there; 0 where none is."""
        bundled = (max(last - BUNDLED, sequence) + 1 for last in self.bundles if last > sequence)
        singles = (each for each in self.singles if each > sequence)
        return min((*bundled, *singles), default=0)


@dataclass(frozen=True, slots=True)
class AuditBook:
    """
    The chain in one repository; ``start`` is what its first record follows.

    ``trusted`` are the public keys that have ever signed it. ``seal`` and ``unseal`` take an
    object's name and its bytes.
    """

    store: ObjectStore
    start: Head
    signer: Signer = field(repr=False)
    trusted: frozenset[bytes]
    seal: Callable[[str, bytes], bytes] = field(repr=False)
    unseal: Callable[[str, bytes], bytes] = field(repr=False)

    # ------------------------------------------------------------------ reading

    def names(self) -> AuditNames:
        """Every object of the chain."""
        names = AuditNames(set(), set(), [])
        for info in self.store.list(AUDIT):
            match = _NAME.fullmatch(info.name)
            number = int(match[2]) if match else 0
            if number == 0 or (match and match[1] and number % BUNDLED):
                names.strays.append(info.name)
            elif match and match[1]:
                names.bundles.add(number)
            else:
                names.singles.add(number)
        return names

    def single(self, sequence: int) -> SignedRecord:
        """The record of that number that stands alone; raises ObjectMissing and Damaged."""
        name = audit_name(sequence)
        return self.opened(name, self.store.get(name))

    def opened(self, name: str, sealed: bytes) -> SignedRecord:
        """The record in an object of that name; raises Damaged."""
        try:
            return SignedRecord.from_bytes(self.content(name, sealed))
        except ValueError as error:
            raise Damaged(f"{name} has the wrong form") from error

    def content(self, name: str, sealed: bytes) -> bytes:
        """What was sealed for that name; raises Damaged, also where it calls itself newer."""
        try:
            return self.unseal(name, sealed)
        except FormatUnsupported as error:
            raise Damaged(error.message) from error

    def bundle(self, last: int) -> dict[int, SignedRecord]:
        """The records up to ``last`` that stand together; raises ObjectMissing and Damaged."""
        name = audit_bundle_name(last)
        records = bundle_from_bytes(self.content(name, self.store.get(name)), name)
        return dict(enumerate(records, last - BUNDLED + 1))

    def read(self, sequence: int) -> SignedRecord:
        """The record of that number, wherever it stands; raises ObjectMissing and Damaged."""
        try:
            return self.single(sequence)
        except ObjectMissing:
            return self.bundle(-(-sequence // BUNDLED) * BUNDLED)[sequence]

    def raw_singles(self, sequences: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Those of these numbered objects that are there, still sealed; several at once."""
        with ThreadPoolExecutor(_READERS, thread_name_prefix="audit") as pool:
            for sequence, sealed in pool.map(self._raw, sequences):
                if sealed is not None:
                    yield sequence, sealed

    def _raw(self, sequence: int) -> tuple[int, bytes | None]:
        try:
            return sequence, self.store.get(audit_name(sequence))
        except ObjectMissing:
            return sequence, None

    def head(self) -> Head:
        """The newest record; raises AuditBroken where it does not open."""
        return self._head(self.names().newest)

    def _head(self, newest: int) -> Head:
        return Head(newest, _whole(self, newest).hash) if newest else self.start

    def check(self, seen: Head | None) -> None:
        """Raise RolledBack or AuditBroken where a record that was seen is not there any more."""
        if seen is not None:
            self._resumed(seen)

    # ------------------------------------------------------------------ writing

    def append(self, deed: Deed, seen: Head | None) -> Head:
        """
        Make a record durable, and give the head that it is.

        ``seen`` is a record that was the newest once, and must still be there. Raises RolledBack
        where it is not, AuditBroken where nothing can follow what is there.
        """
        return self._append(deed, self._resumed(seen))

    def _append(self, deed: Deed, head: Head) -> Head:
        refused = 0
        while True:
            made = SignedRecord.of(AuditRecord(head.sequence + 1, head.hash, deed), self.signer)
            name = audit_name(head.sequence + 1)
            try:
                self.store.put(name, self.seal(name, made.to_bytes()))
            except ObjectExists:  # another has it, so that the chain has grown all the same
                refused += 1
                head = self._next(head) if refused % _STEPS else self.head()
            else:
                return Head(head.sequence + 1, made.hash)

    def _next(self, head: Head) -> Head:
        following = _whole(self, head.sequence + 1)
        try:
            follows = following.record().previous == head.hash
        except ValueError:
            follows = False
        if not follows:
            raise AuditBroken(f"audit record {head.sequence + 1} does not follow the one before it")
        return Head(head.sequence + 1, following.hash)

    def _resumed(self, seen: Head | None) -> Head:
        """Where to go on; raises RolledBack where what was seen before is not there any more."""
        if seen is None or not seen.sequence:
            return self.head()
        try:
            there = self.read(seen.sequence)
        except ObjectMissing:
            return self._after_loss(seen)
        except Damaged as error:
            raise _broken(seen.sequence, error) from error
        except KeyUnusable as error:  # it is there, and its hash is known
            log.warning("audit record %d is only known to be there: %s", seen.sequence, error)
            return seen
        if there.hash != seen.hash:
            raise RolledBack(
                f"audit record {seen.sequence} at {self.store.address} is not the one that this"
                " machine has seen: the repository was set back, and written to since"
            )
        return seen

    def _after_loss(self, seen: Head) -> Head:
        names = self.names()
        if names.newest < seen.sequence:
            raise RolledBack(
                f"the repository at {self.store.address} was set back: audit records"
                f" {names.newest + 1} to {seen.sequence}, which this machine has seen, are missing"
            )
        following = _whole(self, names.first_after(seen.sequence)).record()
        if not any(first <= seen.sequence <= last for first, last in following.deed.accepts):
            raise AuditBroken(
                f"audit record {seen.sequence} at {self.store.address} is missing, and later ones"
                " are there"
            )
        log.warning("audit record %d was given up: %s", seen.sequence, following.deed.origin.reason)
        return self._head(names.newest)

    def accept(self, deed: Deed, seen: Head | None) -> Head:
        """
        Go on after a chain that is broken or was set back, with a record that says so.

        It comes after everything that is there or was ``seen``, and follows the last whole record.
        """
        names = self.names()
        last = max(names.newest, seen.sequence if seen else 0)
        if last >= _LAST:
            raise AuditBroken(
                f"{audit_name(last)} has a number that no chain comes to",
                "Remove that object, which nobody wrote for this tenant; then accept the rest.",
            )
        whole = next(self._whole_before(names), self.start)
        return self._append(deed, Head(last, whole.hash))

    def _whole_before(self, names: AuditNames) -> Iterator[Head]:
        """The records that open, newest first; of a bundle the last one alone."""
        for sequence in sorted(names.singles | names.bundles, reverse=True):
            try:
                yield self._head(sequence)
            except (AuditBroken, ObjectMissing):
                continue


def open_book(store: ObjectStore, owner: Owner, keys: TenantKeys) -> AuditBook:
    """The chain of this tenant in this repository."""
    signers = [Signer(seed) for seed in keys.audit_keys]
    sealing = keys.of_audit
    return AuditBook(
        store,
        genesis(owner.repository, owner.tenant),
        signers[0],
        frozenset(each.public for each in signers),
        lambda name, content: seal_content(Kind.AUDIT, name, content, sealing, owner.repository),
        lambda name, sealed: open_content(Kind.AUDIT, name, sealed, sealing, owner.repository),
    )


def _whole(book: AuditBook, sequence: int) -> SignedRecord:
    try:
        return book.read(sequence)
    except Damaged as error:
        raise _broken(sequence, error) from error


def _broken(sequence: int, error: Damaged) -> AuditBroken:
    return AuditBroken(f"audit record {sequence} does not open: {error.message}")
