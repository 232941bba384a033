"""Following the transaction logs of many tenants at once, in a thread for each source."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from kryonix_backup.clock import Clock
from kryonix_backup.errors import AlreadyRunning, KryonixError, SourceUnprepared
from kryonix_backup.model import SourceName, TenantId
from kryonix_backup.sdk.client import Client, LogReport

log = logging.getLogger(__name__)

SEGMENT_EVERY_S = 60.0
"""How often a log is cut: a fifth of the shortest RPO that a tier promises."""

_AGAIN_S = 1.0  # a predecessor lets go within a second or two
_MOST_S = 60.0


class Standing(StrEnum):
    """How it is with one source's log."""

    STARTING = "starting"
    FOLLOWED = "followed"
    WAITING = "waiting"  # another process follows it
    UNPREPARED = "not prepared"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class LogState:
    """One source's log: how it stands, the newest report, and the error that stands in the way."""

    tenant: TenantId
    source: SourceName
    standing: Standing
    report: LogReport | None = None
    message: str = ""


class LateLogs:
    """Finds logs that lead to no moment as young as was promised, whatever is the reason."""

    def __init__(self, rpo_s: float, clock: Clock) -> None:
        self._rpo_s = rpo_s
        self._clock = clock
        self._seen: dict[tuple[TenantId, SourceName], datetime] = {}
        self._late: set[tuple[TenantId, SourceName]] = set()

    def newly(self, states: Sequence[LogState]) -> list[LogState]:
        """Those that have become late since this was last asked."""
        now = self._clock.now()
        late: dict[tuple[TenantId, SourceName], LogState] = {}
        for state in states:
            place = (state.tenant, state.source)
            first = self._seen.setdefault(place, now)
            newest = (state.report.restorable if state.report else None) or first
            if (now - newest).total_seconds() > self._rpo_s:
                late[place] = state
        new = [state for place, state in late.items() if place not in self._late]
        self._late = set(late)
        return new


class LoggedTenant(NamedTuple):
    """
    A tenant with ``sources`` that keep a log.

    ``connect`` is called once in the thread of each source. Another ``version`` says that the
    settings have changed.
    """

    sources: tuple[SourceName, ...]
    connect: Callable[[], Client]
    version: str = ""


class LogFollowers:
    """
    Follows every log that it is told to keep, and tries again for ever.

    One tenant's failure is nothing to the others. Use it as one thread: what it starts end with
    `stop`, and with the process.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._followers: dict[tuple[TenantId, SourceName], _Follower] = {}
        self._leaving: list[_Follower] = []

    def keep(self, tenants: Mapping[TenantId, LoggedTenant]) -> None:
        """Follow the logs of these tenants and of no others; who is followed already goes on."""
        wanted = {(each, source): tenants[each] for each in tenants for source in tenants[each][0]}
        for key, follower in list(self._followers.items()):
            if key not in wanted or not follower.serves(wanted[key]):
                follower.leave()
                self._leaving.append(self._followers.pop(key))
        self._leaving = [follower for follower in self._leaving if follower.alive()]
        for key in wanted.keys() - self._followers.keys():
            self._followers[key] = _Follower(*key, wanted[key], self._every_s)

    def states(self) -> list[LogState]:
        """How every log stands, by tenant and source."""
        return [self._followers[key].state for key in sorted(self._followers)]

    def stop(self) -> None:
        """Let go of every log; what was committed until now is durable when this returns."""
        going = [*self._followers.values(), *self._leaving]
        for follower in going:
            follower.leave()
        for follower in going:
            follower.join()


class _Follower:
    """One log, followed in a thread of its own until it is told to leave."""

    def __init__(
        self, tenant: TenantId, source: SourceName, logged: LoggedTenant, every_s: float
    ) -> None:
        self.state = LogState(tenant, source, Standing.STARTING)
        self._logged = logged
        self._every_s = every_s
        self._pause_s = _AGAIN_S
        self._client: Client | None = None
        self._over = threading.Event()
        # In the context of who asks, so that what the thread logs belongs to its run.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name=f"log {tenant} {source}", daemon=True
        )
        self._thread.start()

    def serves(self, logged: LoggedTenant) -> bool:
        """Whether it still runs, for a tenant as it is now."""
        return self.alive() and logged.version == self._logged.version

    def alive(self) -> bool:
        return self._thread.is_alive()

    def leave(self) -> None:
        self._over.set()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._follow()
            except AlreadyRunning as error:
                self._fail(Standing.WAITING, error, _AGAIN_S)
            except SourceUnprepared as error:
                self._fail(Standing.UNPREPARED, error, _MOST_S)
            except KryonixError as error:
                self._fail(Standing.FAILING, error, min(self._pause_s * 2, _MOST_S))

    def _follow(self) -> None:
        # Kept from try to try: to open a repository costs a third of a second of work.
        self._client = self._client or self._logged.connect()
        self._client.follow_log(
            self.state.source, every=self._every_s, until=self._over.is_set, tell=self._hear
        )

    def _hear(self, report: LogReport) -> None:
        if report.segments:
            self._pause_s = _AGAIN_S
        self._say(Standing.FOLLOWED, report, "")

    def _fail(self, standing: Standing, error: KryonixError, pause_s: float) -> None:
        if standing is Standing.FAILING and error.message != self.state.message:
            log.warning(
                "the log of %s of %s is not followed: %s",
                self.state.source, self.state.tenant, error.message,
            )  # fmt: skip
        self._pause_s = pause_s
        self._say(standing, self.state.report, error.message)
        self._over.wait(pause_s)

    def _say(self, standing: Standing, report: LogReport | None, message: str) -> None:
        self.state = LogState(self.state.tenant, self.state.source, standing, report, message)
