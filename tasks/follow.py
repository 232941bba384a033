"""
The long-lived run of a pool that follows the transaction logs of all its tenants.

The pool's artifact ``follow-POOL`` is both the table that an operator looks at and the claim to
the pool: its newest version belongs to the run that follows. A run that finds a newer one than its
own has a successor, and leaves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import httpx
from prefect import get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact, BlockDocument
from prefect.client.schemas.sorting import ArtifactSort
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound, PrefectException

from blocks.names import backup_deployment
from blocks.tenant import TenantBlock
from kryonix_backup import __version__
from kryonix_backup.clock import Clock, SystemClock
from kryonix_backup.errors import KryonixError
from kryonix_backup.model import BackupKind, SourceName, TenantId, Tier
from kryonix_backup.sdk.client import Client
from kryonix_backup.sdk.following import LateLogs, LogFollowers, LoggedTenant, LogState, Standing
from kryonix_backup.sdk.limits import load_tiers
from kryonix_backup.sdk.logs import log_sources
from tasks.connection import load_tenant, run_environment
from tasks.logs import log_row
from tasks.policy import HOUR_S
from tasks.run import note_facts

LOOK_EVERY_S = 10.0
LIFETIME_S = HOUR_S
_FRESH_S = 60.0  # a claim that was not renewed for so long is that of a run that is gone
_PAGE = 200

# What every call of Prefect's API may raise while its server is away; the logs go on being kept.
_UNREACHABLE = (httpx.HTTPError, PrefectException, RuntimeError)


def claim(pool: Tier, clock: Clock) -> UUID | None:
    """
    Make this run the one that follows the pool's logs; the artifact that says so.

    None where another run follows them, of this version and not yet at the end of its time.
    """
    with get_client(sync_client=True) as client:
        newest = _newest(client, pool)
        if newest is not None and _goes_on(client, newest, clock):
            get_run_logger().info("the logs of %s are followed by run %s", pool, newest.flow_run_id)
            return None
        made = client.create_artifact(
            ArtifactCreate(
                type="table",
                key=_key(pool),
                description=f"Transaction logs of {pool}",
                data="[]",
                metadata_={"version": __version__},
                flow_run_id=UUID(str(runtime.flow_run.id)),
            )
        )
        return made.id


def is_succeeded(client: SyncPrefectClient, pool: Tier, ours: UUID) -> bool:
    """Whether another run has claimed the pool since."""
    newest = _newest(client, pool)
    return newest is not None and newest.id != ours


def _newest(client: SyncPrefectClient, pool: Tier) -> Artifact | None:
    chosen = ArtifactFilter(key=ArtifactFilterKey(any_=[_key(pool)]))
    found = client.read_artifacts(
        artifact_filter=chosen, sort=ArtifactSort.CREATED_DESC, limit=1, offset=0
    )
    return found[0] if found else None


def _goes_on(client: SyncPrefectClient, newest: Artifact, clock: Clock) -> bool:
    """Whether the run of that claim lives, and has no reason to be relieved."""
    assert newest.created is not None
    assert newest.updated is not None
    now = clock.now()
    if now - newest.updated > timedelta(seconds=_FRESH_S):
        return False
    if now - newest.created > timedelta(seconds=LIFETIME_S):
        return False
    if (newest.metadata_ or {}).get("version") != __version__ or newest.flow_run_id is None:
        return False
    try:
        state = client.read_flow_run(newest.flow_run_id).state
    except ObjectNotFound:
        return False
    return state is not None and not state.is_final()


def _key(pool: Tier) -> str:
    return f"follow-{pool}"


class PoolTenants:
    """The tenants of a pool that keep a log, as their blocks say at the moment."""

    def __init__(self, pool: Tier) -> None:
        self._pool = pool
        self._known: dict[TenantId, LoggedTenant] = {}
        self._refused: dict[TenantId, str] = {}

    def look(self, client: SyncPrefectClient) -> Mapping[TenantId, LoggedTenant]:
        """Load what is new or was changed; one whose settings cannot be used stays as it was."""
        there = {TenantId(str(each.name)): str(each.updated) for each in self._blocks(client)}
        self._known = {name: self._known[name] for name in self._known.keys() & there.keys()}
        for name, version in there.items():
            if name not in self._known or self._known[name].version != version:
                self._load(name, version)
        return {name: each for name, each in self._known.items() if each.sources}

    def _load(self, name: TenantId, version: str) -> None:
        try:
            settings, root = load_tenant(name)
            sources = tuple(log_sources(settings))
        except KryonixError as error:
            if self._refused.get(name) != error.message:  # it is looked at every few seconds
                get_run_logger().error("tenant %s cannot be followed: %s", name, error.message)
            self._refused[name] = error.message
            return
        self._refused.pop(name, None)
        env = run_environment()  # now: the followers' threads need not know the run
        self._known[name] = LoggedTenant(sources, lambda: Client(settings, root, env=env), version)

    def _blocks(self, client: SyncPrefectClient) -> list[BlockDocument]:
        found: list[BlockDocument] = []
        while len(found) % _PAGE == 0:
            page = client.read_block_documents_by_type(
                TenantBlock.get_block_type_slug(),
                offset=len(found), limit=_PAGE, include_secrets=False,
            )  # fmt: skip
            found += page
            if not page:
                break
        return [each for each in found if each.data.get("tier") == self._pool]


class Board:
    """Tells how a pool's logs stand: in the table of its claim, by events, and in the run's log."""

    def __init__(self, claimed: UUID, clock: Clock, rpo_s: float) -> None:
        self._claim = claimed
        self._clock = clock
        self._late = LateLogs(rpo_s, clock)
        self._told: dict[tuple[TenantId, SourceName], Standing] = {}
        self._asked: set[str] = set()

    def show(self, client: SyncPrefectClient, states: Sequence[LogState]) -> None:
        """Renew the claim, and tell what has changed."""
        self._tell_changes(states)
        rows = [{"Tenant": state.tenant, **self._row(state)} for state in states]
        client.update_artifact(self._claim, ArtifactUpdate(data=json.dumps(rows)))
        for state in self._late.newly(states):
            get_run_logger().error(
                "the log of %s of %s leads to no moment within the RPO: it is %s; %s",
                state.source, state.tenant, state.standing.value, state.message or "no error",
            )  # fmt: skip
            _emit("late", state)
        for state in states:
            if state.report is not None and state.report.needs_full:
                self._ask_for_full(state)

    def _row(self, state: LogState) -> dict[str, str | int]:
        head: dict[str, str | int] = {"Source": state.source, "Standing": state.standing.value}
        if state.report is not None:
            head |= log_row(state.report.to_plain())
            if state.report.restorable is not None:
                age = self._clock.now() - state.report.restorable
                head["Age"] = f"{age.total_seconds():.0f} s"
        return {**head, "Error": state.message}

    def _tell_changes(self, states: Sequence[LogState]) -> None:
        for state in states:
            place = (state.tenant, state.source)
            if self._told.get(place) is not state.standing:
                self._told[place] = state.standing
                _emit(state.standing.value.replace(" ", "-"), state)

    def _ask_for_full(self, state: LogState) -> None:
        """Have a full backup made at once: only that leads on after a gap."""
        assert state.report is not None
        asked = (
            f"full-{state.tenant}-{state.source}-{state.report.chain}-{len(state.report.broken)}"
        )
        if asked in self._asked:
            return
        deployment = backup_deployment(state.tenant, BackupKind.FULL)
        try:
            run_deployment(deployment, timeout=0, as_subflow=False, idempotency_key=asked)
        except ObjectNotFound:
            get_run_logger().error(
                "%s of %s needs a full backup, and the server has no deployment %s:"
                " run 'kryonix backup %s --kind full'",
                state.source, state.tenant, deployment, state.tenant,
            )  # fmt: skip
        self._asked.add(asked)
        _emit("gap", state)


def _emit(what: str, state: LogState) -> None:
    report = state.report.to_plain() if state.report is not None else {}
    emit_event(
        event=f"kryonix.log.{what}",
        resource={
            "prefect.resource.id": f"kryonix.source.{state.tenant}.{state.source}",
            "prefect.resource.name": f"{state.source} of {state.tenant}",
        },
        payload={**report, "message": state.message},
    )


@task(
    name="follow the logs",
    task_run_name="follow the logs of {pool}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def follow_pool(pool: Tier, every_s: float) -> str:
    """
    Follow the logs of all tenants of a pool until another run does.

    Not tried again: the schedule starts a successor, which asks first whether it is needed.
    """
    # Refused where there is none: nobody would ever see that a pool without tenants is followed.
    rpo_s = load_tiers(os.environ).of(pool).rpo_s
    clock = SystemClock()
    ours = claim(pool, clock)
    note_facts(pool, status="complete")
    if ours is None:
        return f"the logs of {pool} are followed by another run"
    tenants, board, followers = PoolTenants(pool), Board(ours, clock, rpo_s), LogFollowers(every_s)
    try:
        while not _look(pool, ours, tenants, board, followers):
            clock.sleep(LOOK_EVERY_S)
    finally:
        followers.stop()
    return f"handed over: another run follows the logs of {pool}"


def _look(
    pool: Tier, ours: UUID, tenants: PoolTenants, board: Board, followers: LogFollowers
) -> bool:
    """Whether it is over; a server that is away changes nothing."""
    try:
        with get_client(sync_client=True) as client:
            if is_succeeded(client, pool, ours):
                return True
            followers.keep(tenants.look(client))
            board.show(client, followers.states())
    except _UNREACHABLE as error:
        get_run_logger().warning("Prefect's server is not reached, the logs are kept: %s", error)
    return False
