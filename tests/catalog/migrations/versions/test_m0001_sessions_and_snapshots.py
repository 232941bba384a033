"""The migrations make the tables that the code speaks of, and take them back."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect

import kryonix_backup.catalog.migrations
from kryonix_backup.catalog.schema import METADATA


def _config(connection: Connection) -> Config:
    config = Config()
    scripts = Path(kryonix_backup.catalog.migrations.__file__).parent
    config.set_main_option("script_location", str(scripts))
    config.attributes["connection"] = connection
    return config


def test_the_tables_are_those_of_the_schema() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        command.upgrade(_config(connection), "head")
        differences = compare_metadata(MigrationContext.configure(connection), METADATA)
    engine.dispose()

    assert differences == []


def test_the_step_can_be_taken_back() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        command.upgrade(_config(connection), "0001")
        command.downgrade(_config(connection), "base")
        left = inspect(connection).get_table_names()
    engine.dispose()

    assert left == ["alembic_version"]
