"""The catalog's tables. A change here comes with a migration."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, kept in UTC; SQLite forgets the zone, so that it is put back here."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is not None:
            return None if value is None else value.astimezone(UTC)
        found: datetime = value.replace(tzinfo=UTC)
        return found


METADATA = MetaData()

# One row per backup, restore or verification.
SESSIONS = Table(
    "sessions",
    METADATA,
    Column("tenant", String(40), primary_key=True),
    Column("run", String(64), primary_key=True),
    Column("operation", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("snapshot", String(64)),
    Column("status", String(16), nullable=False),
    Column("started", UtcDateTime, nullable=False),
    Column("finished", UtcDateTime, nullable=False),
    Column("bytes_read", BigInteger, nullable=False),
    Column("bytes_new", BigInteger, nullable=False),
    Column("bytes_stored", BigInteger, nullable=False),
    Column("chunks", BigInteger, nullable=False),
    Column("chunks_new", BigInteger, nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("error", Text),
    Index("sessions_by_time", "tenant", "started"),
)

SNAPSHOTS = Table(
    "snapshots",
    METADATA,
    Column("tenant", String(40), primary_key=True),
    Column("snapshot", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("parent", String(64)),
    Column("started", UtcDateTime, nullable=False),
    Column("finished", UtcDateTime, nullable=False),
    Column("sources", JSON, nullable=False),
)
