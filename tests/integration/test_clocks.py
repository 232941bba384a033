"""Clocks that are set back and forward between backups."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from kryonix_backup.errors import SnapshotUnknown
from kryonix_backup.model import BackupKind, SourceName, TenantId, Tier
from kryonix_backup.sdk.client import Client, Level, RestoreRequest
from kryonix_backup.settings import (
    PRIMARY,
    RegionSettings,
    RootKey,
    Secret,
    SourceSettings,
    TenantSettings,
)
from kryonix_backup.testing.clock import NOON, FixedClock

pytestmark = pytest.mark.service

DAY, YEAR, HOUR = timedelta(days=1), timedelta(days=365), timedelta(hours=1)


class Shop:
    """A tenant with one file, whose text is what its last backup was of."""

    def __init__(self, work: Path) -> None:
        self.clock = FixedClock()
        self.file = work / "tree/file"
        self.file.parent.mkdir()
        self.back = work / "back"
        self.settings = TenantSettings(
            TenantId("acme"),
            Tier("standard"),
            (RegionSettings(PRIMARY, f"file://{work / 'repository'}"),),
            (SourceSettings(SourceName("docs"), f"files://{self.file.parent}"),),
        )
        self.env = {"KRYONIX_HOME": str(work / "home")}
        self.client = Client.onboard(self.settings, self._root, clock=self.clock, env=self.env)

    @property
    def _root(self) -> RootKey:
        return RootKey(key_file=Secret(bytes(range(32))))

    def backup(self, text: str) -> str:
        """The snapshot of a backup, by a process of its own, while the file holds that text."""
        self.file.write_text(text)
        client = Client(self.settings, self._root, clock=self.clock, env=self.env)
        return str(client.backup(kind=BackupKind.INCREMENTAL).to_plain()["snapshot"])

    def restored(self, request: RestoreRequest) -> str:
        """The text that a restore brings back."""
        plan = self.client.plan_restore(request)
        self.client.begin_restore(plan)
        self.client.carry_out(plan)
        text = (self.back / "file").read_text()
        (self.back / "file").unlink()
        self.back.rmdir()
        return text

    def latest(self) -> str:
        """The text of the latest snapshot."""
        return self.restored(RestoreRequest(to=self.to))

    @property
    def to(self) -> dict[str, str]:
        """Where restores go."""
        return {"docs": f"files://{self.back}"}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.mark.parametrize("step", [-DAY, -YEAR, YEAR, -timedelta(milliseconds=1), timedelta(0)])
def test_latest_is_what_was_published_last_whatever_the_clock_says(
    shop: Shop, step: timedelta
) -> None:
    texts = ["one", "two", "three", "four"]
    made = []
    for number, text in enumerate(texts):
        made.append(shop.backup(text))
        assert shop.latest() == text
        shop.clock.set_to(NOON + step if number == 1 else shop.clock.now() + HOUR)

    assert [each.id for each in shop.client.snapshots()] == made
    parents = [each.parent for each in shop.client.snapshots()]
    assert parents == [None, *made[:-1]], "each continues from the one before"
    assert shop.client.verify(Level.DATA).status == "ok"


def test_a_year_ahead_and_back_again_hides_no_later_snapshot(shop: Shop) -> None:
    shop.backup("now")
    shop.clock.set_to(NOON + YEAR)
    shop.backup("from the future")
    shop.clock.set_to(NOON + HOUR)
    last = shop.backup("now again")

    assert shop.client.snapshot("latest").id == last
    assert shop.latest() == "now again"


def test_a_time_means_the_newest_snapshot_that_was_finished_by_then(shop: Shop) -> None:
    shop.backup("noon")
    shop.clock.set_to(NOON - DAY)
    shop.backup("a day before, by a clock that was set back")
    shop.clock.set_to(NOON + HOUR)
    shop.backup("an hour later")

    def at(when: timedelta) -> str:
        return shop.restored(RestoreRequest(at=NOON + when, to=shop.to))

    assert at(2 * HOUR) == "an hour later"
    assert at(HOUR) == "an hour later"
    assert at(-HOUR) == "a day before, by a clock that was set back"
    with pytest.raises(SnapshotUnknown, match="the oldest was taken"):
        at(-2 * DAY)


def test_a_time_that_a_wrong_clock_gave_is_told(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.backup("noon")
    shop.clock.set_to(NOON - DAY)
    back = shop.backup("set back")
    assert f"the clock is behind snapshot {shop.client.snapshots()[0].id}" in caplog.text

    plan = shop.client.plan_restore(RestoreRequest(at=NOON - HOUR, to=shop.to))

    assert (plan.snapshot, plan.to_plain()["taken"]) == (back, (NOON - DAY).isoformat())
    assert f"snapshot {back} was taken while a clock was set back" in caplog.text


def test_a_snapshot_from_the_future_is_passed_over_with_a_word(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.backup("noon")
    shop.clock.set_to(NOON + YEAR)
    ahead = shop.backup("a year ahead")
    shop.clock.set_to(NOON + HOUR)

    assert shop.restored(RestoreRequest(at=NOON + HOUR, to=shop.to)) == "noon"
    assert f"snapshot {ahead} is passed over: its time is in the future" in caplog.text
