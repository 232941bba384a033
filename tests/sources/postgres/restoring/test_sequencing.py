from __future__ import annotations

from pathlib import Path

import pytest

from kryonix_backup.testing.postgres import PostgresServer
from tests.services.postgres import new_database
from tests.sources.postgres.engine import restored, tenant_of

pytestmark = pytest.mark.service


def test_sequences_come_back_whatever_they_stand_at(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        for statement in (
            "create sequence plain", "select nextval('plain')", "create sequence never",
            "create sequence anew", "alter sequence anew restart with 1000",
            "create sequence set_back", "select setval('set_back', 70)",
            "select setval('set_back', 7, false)",
            "create sequence downwards increment -2", "select nextval('downwards')",
            "create sequence round minvalue 1 maxvalue 9 cycle", "select setval('round', 2)",
            "create table rounds (a int)", "alter sequence round owned by rounds.a",
            "insert into rounds values (8)",
            "create table texts (id serial primary key)", "alter table texts alter id type text",
            "insert into texts default values", "insert into texts values ('x')",
            "create table wide (id smallserial primary key)", "alter table wide alter id type int",
            "insert into wide values (100000), (default)",
            "create table ahead (id serial primary key)", "insert into ahead values (5)",
        ):  # fmt: skip
            connection.execute(statement)
    client = tenant_of(postgres.url(database), tmp_path)
    client.backup()
    restored(client, postgres.url(f"{database}_back"))

    def state(name: str) -> dict[str, object]:
        with postgres.connect(name) as connection:
            names = connection.execute("select sequencename from pg_sequences").fetchall()
            return {
                str(each): connection.execute(
                    f"select last_value, is_called from {each}".encode()
                ).fetchone()
                for (each,) in names
            }

    assert state(f"{database}_back") == {**state(database), "ahead_id_seq": (5, True)}
