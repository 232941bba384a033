"""Runs and snapshots of every tenant, found again; each method speaks of one tenant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, delete, event, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from kryonix_backup.catalog.outbox import Outbox
from kryonix_backup.catalog.record import RunRecord, SnapshotRecord
from kryonix_backup.catalog.schema import SESSIONS, SNAPSHOTS
from kryonix_backup.errors import CatalogUnusable
from kryonix_backup.model import TenantId

_PATIENCE_S = 30  # another process may be taking in a long outbox


class Catalog:
    """The catalog's database; use it as a context manager, or `close` it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str, outbox: Outbox) -> Self:
        """
        The catalog at an address of SQLAlchemy's, with its tables up to date.

        Records that wait in the outbox are taken in. Raises CatalogUnusable.
        """
        catalog = cls(_engine(url))
        try:
            with catalog._transaction() as connection:
                _migrate(connection)
            catalog._take_in(outbox)
        except CatalogUnusable:
            catalog.close()
            raise
        return catalog

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def runs(self, tenant: TenantId, limit: int | None = None) -> list[RunRecord]:
        """A tenant's runs, newest first."""
        query = (
            select(SESSIONS)
            .where(SESSIONS.c.tenant == tenant)
            .order_by(SESSIONS.c.started.desc(), SESSIONS.c.run.desc())
            .limit(limit)
        )
        with self._transaction() as connection:
            return [RunRecord(**row) for row in connection.execute(query).mappings()]

    def snapshots(self, tenant: TenantId) -> list[SnapshotRecord]:
        """A tenant's snapshots, oldest first."""
        query = select(SNAPSHOTS).where(SNAPSHOTS.c.tenant == tenant).order_by(SNAPSHOTS.c.snapshot)
        with self._transaction() as connection:
            return [SnapshotRecord(**row) for row in connection.execute(query).mappings()]

    def replace(
        self, tenant: TenantId, snapshots: Iterable[SnapshotRecord], runs: Iterable[RunRecord]
    ) -> None:
        """
        Let a tenant's snapshots be these and no others, and its runs at least these.

        Runs that no repository remembers, such as failures, stay.
        """
        with self._transaction() as connection:
            connection.execute(delete(SNAPSHOTS).where(SNAPSHOTS.c.tenant == tenant))
            for snapshot in snapshots:
                _put_snapshot(connection, snapshot)
            for run in runs:
                _put_run(connection, run)

    def _take_in(self, outbox: Outbox) -> None:
        letters = list(outbox.letters())
        with self._transaction() as connection:
            for letter in letters:
                _put_run(connection, letter.run)
                if letter.snapshot is not None:
                    _put_snapshot(connection, letter.snapshot)
        # Only now: a crash before this line takes the same records in once more.
        for letter in letters:
            outbox.discard(letter)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, CommandError) as error:
            where = self._engine.url.render_as_string(hide_password=True)
            raise CatalogUnusable(
                f"the catalog at {where} cannot be used: {_why(error)}"
            ) from error


def _put_run(connection: Connection, run: RunRecord) -> None:
    """Of several records of one run the one that finished last counts."""
    here = (SESSIONS.c.tenant == run.tenant) & (SESSIONS.c.run == run.run)
    there = connection.execute(select(SESSIONS.c.finished).where(here)).scalar()
    if there is not None and there > run.finished:
        return
    connection.execute(delete(SESSIONS).where(here))
    connection.execute(insert(SESSIONS).values(asdict(run)))


def _put_snapshot(connection: Connection, snapshot: SnapshotRecord) -> None:
    here = (SNAPSHOTS.c.tenant == snapshot.tenant) & (SNAPSHOTS.c.snapshot == snapshot.snapshot)
    connection.execute(delete(SNAPSHOTS).where(here))
    connection.execute(insert(SNAPSHOTS).values(asdict(snapshot)))


def _migrate(connection: Connection) -> None:
    scripts = Path(__file__).with_name("migrations")
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        engine = create_engine(parsed, connect_args={"timeout": _PATIENCE_S} if sqlite else {})
    except (ArgumentError, ImportError) as error:
        raise CatalogUnusable(
            f"KRYONIX_CATALOG_URL cannot be used: {_why(error)}",
            "Write it like sqlite:////dir/catalog.db, or leave it out.",
        ) from error
    if sqlite:
        event.listen(engine, "connect", _leave_transactions_to_us)
        event.listen(engine, "begin", _begin)
    return engine


def _leave_transactions_to_us(connection: Any, _record: Any) -> None:
    # Otherwise the driver begins none for a migration, and a crash leaves half of one behind.
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    # At once as a writer: two processes that open a new catalog make its tables one by one.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _why(error: Exception) -> str:
    lines: Sequence[str] = str(getattr(error, "orig", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__
