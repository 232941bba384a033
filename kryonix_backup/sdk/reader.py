"""Everything that looks at one tenant's repository and changes nothing in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property

from kryonix_backup.browse.audit_history import ShownRecord, newest_records
from kryonix_backup.browse.difference import Change, diff
from kryonix_backup.browse.listing import Listed, list_entries, read_entry
from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.crypto.fips import check_fips
from kryonix_backup.errors import KryonixError, RolledBack
from kryonix_backup.maintenance.audit_report import AuditReport
from kryonix_backup.maintenance.verify_audit import verify_audit
from kryonix_backup.model import Blob, SourceName, TenantId
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.restorable import Restorable, moments_of
from kryonix_backup.repository.snapshot import Snapshot
from kryonix_backup.sdk.journal import RunJournal
from kryonix_backup.sdk.limits import Held
from kryonix_backup.sdk.trail import Trail, told_first
from kryonix_backup.sdk.wiring import open_repository, outbox
from kryonix_backup.settings import PRIMARY, RootKey, TenantSettings

_SYSTEM = SystemClock()


class Reader:
    """
    One tenant, as seen from one of its regions, by whoever looks.

    The repository is opened when it is first needed. Every KryonixError that leaves a method
    names the tenant, and every look leaves a record in the audit chain.
    """

    def __init__(
        self,
        settings: TenantSettings,
        root: RootKey,
        *,
        clock: Clock = _SYSTEM,
        env: Mapping[str, str] | None = None,
        region: str = PRIMARY,
    ) -> None:
        self.settings = settings
        self._root = root
        self._clock = clock
        self._env = os.environ if env is None else env
        with self._named():
            check_fips(settings)
            self._region = settings.region(region)
            self._held = Held.of(settings, self._env, clock)
        self._trail = Trail(settings.id, self._env, clock, lambda: self.repository)
        self._journal = RunJournal(settings.id, outbox(self._env), clock, self._trail)

    @property
    def tenant(self) -> TenantId:
        """The tenant's id."""
        return self.settings.id

    @cached_property
    def repository(self) -> Repository:
        """The tenant's repository in this client's region."""
        return open_repository(self.tenant, self._region, self._root, self._held)

    def snapshots(self) -> list[Snapshot]:
        """Every snapshot, oldest first."""
        with self._named(), self._trail.reading("snapshots") as tell:
            found = list(self.repository.snapshots())
            tell("")
            return found

    def restorable(self) -> dict[SourceName, Restorable]:
        """Which moments of each source with a log can be restored; reads every segment's head."""
        with self._named(), self._trail.reading("moments") as tell:
            found = moments_of(self.repository)
            tell("")
            return found

    def newest_settings(self) -> TenantSettings | None:
        """The settings that the newest snapshot was made with; None where there is none."""
        with self._named():
            if not self.repository.snapshot_ids():
                return None
            return TenantSettings.from_plain(self.repository.snapshot("latest").settings)

    def snapshot(self, snapshot: str) -> Snapshot:
        """The snapshot of that id, of the one id that starts so, or the ``latest``."""
        with self._named():
            return self.repository.snapshot(snapshot)

    def ls(self, snapshot: str, path: str = "") -> Iterator[Listed]:
        """The entry at ``SOURCE/path`` and everything below it; an empty path means all."""
        with self._named(), self._trail.reading("ls") as tell:
            chosen = self.repository.snapshot(snapshot)
            yield from told_first(list_entries(self.repository, chosen, path), tell, chosen.id)

    def cat(self, snapshot: str, path: str) -> Iterator[Blob]:
        """The content of the file at ``SOURCE/path``, piece by piece."""
        with self._named(), self._trail.reading("cat") as tell:
            chosen = self.repository.snapshot(snapshot)
            yield from told_first(read_entry(self.repository, chosen, path), tell, chosen.id)

    def diff(self, a: str, b: str) -> Iterator[Change]:
        """What changed from one snapshot to another."""
        with self._named(), self._trail.reading("diff") as tell:
            one, two = self.repository.snapshot(a), self.repository.snapshot(b)
            yield from told_first(diff(self.repository, one, two), tell, f"{one.id} {two.id}")

    def verify_audit(self) -> AuditReport:
        """Check the whole audit chain; what is wrong is told in the report, not raised."""
        with self._named():
            report = verify_audit(
                self.repository.audit(),
                self._trail.seen(self.repository),
                self._clock,
                len(self.repository.snapshot_ids()),
            )
            with suppress(RolledBack):  # the report says so
                self._trail.record("audit verify", report.status)
            return report

    def audit_records(
        self, *, limit: int, since: datetime | None = None, action: str | None = None
    ) -> list[ShownRecord]:
        """The newest records of that action since that time, oldest first; at most so many."""
        with self._named(), self._trail.reading("audit show") as tell:
            found = newest_records(self.repository.audit(), limit, since, action)
            tell("")
            return found

    @contextmanager
    def _named(self, source: str | None = None) -> Iterator[None]:
        try:
            yield
        except KryonixError as error:
            error.tenant = error.tenant or self.settings.id
            error.source = error.source or source
            raise
