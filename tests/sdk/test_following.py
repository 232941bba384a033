"""Many logs are followed at once, each whatever becomes of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from kryonix_backup.crypto.keys import KeyState
from kryonix_backup.crypto.seal import HEADER_BYTES, Header
from kryonix_backup.model import ChainId, RegionName, SourceName, TenantId, Tier
from kryonix_backup.sdk.client import Client, LogReport
from kryonix_backup.sdk.following import (
    LateLogs,
    LogFollowers,
    LoggedTenant,
    LogState,
    Standing,
)
from kryonix_backup.sdk.keys import Keys
from kryonix_backup.settings import RegionSettings, RootKey, Secret, SourceSettings, TenantSettings
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions
from tests.services.postgres import new_database

pytestmark = pytest.mark.service

DB = SourceName("db")
ACME, GLOBEX = TenantId("acme"), TenantId("globex")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with start_postgres(versions()[-1]) as server:
        yield server


@dataclass(frozen=True)
class Place:
    """Where tenants live."""

    server: PostgresServer
    root: Path

    def tenant(self, name: TenantId, *, prepare: bool = True, url: str = "") -> Client:
        """An onboarded tenant with a database."""
        url = url or self.server.url(new_database(self.server))
        region = RegionSettings(RegionName("primary"), f"file://{self.root / name}")
        settings = TenantSettings(name, Tier("standard"), (region,), (SourceSettings(DB, url),))
        key = RootKey(key_file=Secret(bytes(range(32))))
        client = Client.onboard(settings, key, env={"KRYONIX_HOME": str(self.root / "home")})
        if prepare:
            client.prepare_source(DB, consent=True)
        return client

    def commit(self, client: Client) -> None:
        """Something happens in a tenant's database."""
        name = client.settings.sources[0].url.rpartition("/")[2]
        with self.server.connect(name) as connection:
            connection.execute("create table if not exists t (a int primary key)")
            connection.execute("insert into t select coalesce(max(a), 0) + 1 from t")


@pytest.fixture
def place(postgres: PostgresServer, tmp_path: Path) -> Iterator[Place]:
    yield Place(postgres, tmp_path)
    with postgres.connect() as connection:
        connection.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots")


@pytest.fixture
def followers() -> Iterator[LogFollowers]:
    made = LogFollowers(every_s=0.2)
    yield made
    made.stop()


def logged(client: Client, version: str = "") -> LoggedTenant:
    return LoggedTenant((DB,), lambda: client, version)


def wait_for(followers: LogFollowers, holds: Callable[[dict[TenantId, LogState]], bool]) -> None:
    waiting = threading.Event()
    for _ in range(400):
        if holds({state.tenant: state for state in followers.states()}):
            return
        waiting.wait(0.05)
    raise AssertionError(followers.states())


def test_one_tenants_failure_is_nothing_to_another(place: Place, followers: LogFollowers) -> None:
    well = place.tenant(ACME)
    ill = place.tenant(GLOBEX, prepare=False, url="postgresql://postgres@127.0.0.1:1/globex")
    followers.keep({ACME: logged(well), GLOBEX: logged(ill)})
    place.commit(well)

    def both(states: dict[TenantId, LogState]) -> bool:
        report = states[ACME].report
        failing = states[GLOBEX].standing is Standing.FAILING
        return failing and report is not None and report.changes > 0

    wait_for(followers, both)
    states = {state.tenant: state for state in followers.states()}
    assert states[ACME].standing is Standing.FOLLOWED
    assert "127.0.0.1:1" in states[GLOBEX].message


def test_what_is_committed_until_the_stop_is_kept(place: Place, followers: LogFollowers) -> None:
    client = place.tenant(ACME)
    followers.keep({ACME: logged(client)})
    wait_for(followers, lambda states: states[ACME].standing is Standing.FOLLOWED)
    for _ in range(50):
        place.commit(client)
    followers.stop()

    assert client.back_up_logs()["db"].changes == 0


def test_a_log_that_is_followed_elsewhere_is_waited_for(place: Place) -> None:
    client = place.tenant(ACME)
    one, other = LogFollowers(every_s=0.2), LogFollowers(every_s=0.2)
    try:
        one.keep({ACME: logged(client)})
        wait_for(one, lambda states: states[ACME].standing is Standing.FOLLOWED)
        other.keep({ACME: logged(client)})
        wait_for(other, lambda states: states[ACME].standing is Standing.WAITING)
        one.stop()
        wait_for(other, lambda states: states[ACME].standing is Standing.FOLLOWED)
    finally:
        one.stop()
        other.stop()


def test_who_is_changed_is_begun_anew_and_who_is_gone_is_let_go(
    place: Place, followers: LogFollowers
) -> None:
    client = place.tenant(ACME)
    followers.keep({ACME: logged(client, "1")})
    wait_for(followers, lambda states: states[ACME].standing is Standing.FOLLOWED)
    followers.keep({ACME: logged(client, "2")})
    wait_for(followers, lambda states: states[ACME].standing is Standing.FOLLOWED)
    followers.keep({})

    assert followers.states() == []
    followers.stop()
    assert client.back_up_logs()["db"].commits >= 0  # nobody else follows it


def test_a_database_that_was_never_prepared_is_no_failure(
    place: Place, followers: LogFollowers
) -> None:
    client = place.tenant(ACME, prepare=False)
    followers.keep({ACME: logged(client)})

    wait_for(followers, lambda states: states[ACME].standing is Standing.UNPREPARED)
    assert list((place.root / "home").glob("outbox/*")) == []


def test_a_thread_that_ended_by_a_fault_of_ours_is_started_again(
    place: Place, followers: LogFollowers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    client = place.tenant(ACME)
    tries = iter([RuntimeError("a fault"), None])

    def connect() -> Client:
        fault = next(tries)
        if fault is not None:
            raise fault
        return client

    each = {ACME: LoggedTenant((DB,), connect)}

    def again(states: dict[TenantId, LogState]) -> bool:
        followers.keep(each)
        return ACME in states and states[ACME].standing is Standing.FOLLOWED

    wait_for(followers, again)


def test_a_log_goes_on_under_the_key_of_now_and_stops_when_the_keys_are_destroyed(
    place: Place, followers: LogFollowers
) -> None:
    client = place.tenant(ACME)
    env = {"KRYONIX_HOME": str(place.root / "home")}
    keys = Keys(client.settings, RootKey(key_file=Secret(bytes(range(32)))), env=env)
    followers.keep({ACME: logged(client)})

    def kept(count: int) -> None:
        place.commit(client)

        def holds(states: dict[TenantId, LogState]) -> bool:
            report = states[ACME].report
            return report is not None and report.changes >= count

        wait_for(followers, holds)
        assert followers.states()[0].standing is Standing.FOLLOWED

    kept(1)
    keys.rotate_data()
    kept(2)
    keys.set_state("2", KeyState.SUSPENDED)
    kept(3)

    store = client.repository.store
    epochs = {row["key"]: row["epoch"] for row in keys.show()["keys"] if row["purpose"] == "data"}
    sealing = [
        epochs[Header.from_bytes(store.get_range(info.name, 0, HEADER_BYTES), info.name).key_id]
        for info in sorted(store.list("logs/"))
    ]
    assert sealing == sorted(sealing), "a key that made way seals nothing more"
    assert set(sealing) == {1, 2, 3}
    keys.destroy()
    place.commit(client)
    wait_for(followers, lambda states: states[ACME].standing is Standing.FAILING)
    assert "were destroyed" in followers.states()[0].message


def test_a_log_is_late_once_whatever_keeps_it() -> None:
    clock = FixedClock()
    late = LateLogs(300.0, clock)
    began = clock.now()

    def log(tenant: TenantId, standing: Standing, restorable: datetime | None) -> LogState:
        report = LogReport(DB, ChainId("c"), 1, 1, 1, 1, restorable, None, None, ())
        return LogState(tenant, DB, standing, report if restorable else None)

    def newly(restorable: datetime | None) -> list[TenantId]:
        states = [log(ACME, Standing.FOLLOWED, restorable), log(GLOBEX, Standing.WAITING, None)]
        return [state.tenant for state in late.newly(states)]

    assert newly(began) == []
    clock.set_to(began + timedelta(seconds=301))
    assert newly(began + timedelta(seconds=100)) == [GLOBEX]
    assert newly(began) == [ACME]
    assert newly(began) == []
    assert newly(clock.now()) == []
    assert newly(began) == [ACME]
