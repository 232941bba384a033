from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database, postgres
from tests.sources.postgres import rich
from tests.sources.postgres.prepared import Tenant
from tests.sources.postgres.story import EVERYTHING, Load, Story

__all__ = ["postgres"]


@pytest.fixture
def tenant(postgres: PostgresServer) -> Iterator[Tenant]:
    """A database that is prepared and released by tests."""
    made = Tenant(postgres, new_database(postgres))
    yield made
    made.drop_slots()


@pytest.fixture
def story(postgres: PostgresServer, tmp_path: Path) -> Story:
    """A database that nothing was done with."""
    return Story(postgres, tmp_path)


@pytest.fixture(scope="session")
def lived(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Load], Story]:
    """A database that has lived through a load, the same one for whoever asks."""
    made: dict[Load, Story] = {}

    def live(load: Load) -> Story:
        if load not in made:
            made[load] = Story(postgres, tmp_path_factory.mktemp("lived"))
            if load is EVERYTHING:
                rich.fill(postgres, made[load].database, rows=60)
                # Views come back filled from what is in the tables then, and large objects as of
                # the full backup.
                made[load].run(
                    "drop materialized view crm.count_again, crm.count",
                    "select lo_unlink(oid) from pg_largeobject_metadata",
                )
            made[load].live(load)
        return made[load]

    return live
