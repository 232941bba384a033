"""Objects of the audit chain that do not open under their names, and what they are instead."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from kryonix_backup.errors import Damaged
from kryonix_backup.maintenance.audit_report import CHANGED, INSERTED, MOVED, Finding
from kryonix_backup.repository.audit import AuditBook, AuditNames
from kryonix_backup.repository.layout import audit_bundle_name, audit_name

_MOST_TRIES = 50_000  # each takes some 30 µs


class _Object(NamedTuple):
    first: int
    last: int
    sealed: bytes
    reason: str


class Misplaced:
    """
    Collects such objects, and looks for the name that each was sealed for.

    The name is bound to the sealing, so an object that was moved opens under its old name alone.
    """

    def __init__(self, book: AuditBook, names: AuditNames) -> None:
        self._book = book
        self._names = names
        self._objects: dict[str, _Object] = {}
        self._tries = 0

    def add(self, name: str, first: int, last: int, sealed: bytes, error: Damaged) -> None:
        """Remember an object that stands for these records and does not open."""
        self._objects[name] = _Object(first, last, sealed, error.message)

    def findings(self) -> list[Finding]:
        """What each of them is; neighbours that were moved alike are one finding."""
        found: list[Finding] = []
        offset = None
        for name, each in sorted(self._objects.items(), key=lambda item: item[1][:2]):
            finding, shift = self._explain(name, each)
            last = found[-1] if found else None
            if last and shift is not None and shift == offset and last.last == finding.first - 1:
                found[-1] = last._replace(
                    last=finding.last,
                    reason=f"they hold what was written as records {last.first + shift} to"
                    f" {finding.last + shift}",
                )
            else:
                found.append(finding)
            offset = shift
        return found

    def _explain(self, name: str, each: _Object) -> tuple[Finding, int | None]:
        home = self._home(name, each)
        if home is None:
            return Finding(CHANGED, each.first, each.last, each.reason), None
        number = int(home.rpartition("/")[2])
        what = f"it holds what was written as {home}"
        if home not in self._objects and self._is_there(home):
            return Finding(INSERTED, each.first, each.last, f"{what}, which is there too"), None
        return Finding(MOVED, each.first, each.last, what), number - each.last

    def _is_there(self, name: str) -> bool:
        number = int(name.rpartition("/")[2])
        return number in (
            self._names.bundles if name == audit_bundle_name(number) else self._names.singles
        )

    def _home(self, name: str, each: _Object) -> str | None:
        for candidate in self._candidates(name, each):
            self._tries += 1
            if self._tries > _MOST_TRIES:
                return None
            try:
                self._book.content(candidate, each.sealed)
            except Damaged:
                continue
            return candidate
        return None

    def _candidates(self, name: str, each: _Object) -> Iterator[str]:
        """The likeliest first: beside it, another that does not open, any other."""
        beside = [audit_name(each.last + shift) for shift in (-1, 1)]
        numbers = map(audit_name, sorted(self._names.singles))
        bundles = map(audit_bundle_name, sorted(self._names.bundles))
        for candidate in chain(beside, self._objects, bundles, numbers):
            if candidate != name:
                yield candidate
