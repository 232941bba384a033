"""Times come back aware, whatever the database keeps of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from sqlalchemy.dialects import sqlite

from kryonix_backup.catalog.schema import UtcDateTime

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_a_moment_is_kept_in_utc() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=-3)))

    kept = UtcDateTime().process_bind_param(there, sqlite.dialect())

    assert kept is not None
    assert kept.isoformat() == "2026-11-23T12:00:00+00:00"
    assert UtcDateTime().process_bind_param(None, sqlite.dialect()) is None


def test_a_moment_comes_back_aware() -> None:
    back = UtcDateTime().process_result_value

    assert back(NOON.replace(tzinfo=None), sqlite.dialect()) == NOON
    assert back(NOON, sqlite.dialect()) == NOON
    assert back(None, sqlite.dialect()) is None
