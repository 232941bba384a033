"""A database is brought back beside what is there, and nothing is replaced before its time."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from kryonix_backup.errors import Damaged, RestoreError, ValidationFailed, WouldOverwrite
from kryonix_backup.model import Phase
from kryonix_backup.sdk.client import Client, RestoreRequest
from kryonix_backup.testing.postgres import PostgresServer, start_postgres
from tests.services.postgres import VERSIONS, new_database
from tests.sources.postgres import rich
from tests.sources.postgres.engine import restored, tenant_of

pytestmark = pytest.mark.service


class Saved:
    """A database with one snapshot, and what was in it then."""

    def __init__(self, server: PostgresServer, work: Path) -> None:
        self.server = server
        self.database = new_database(server)
        rich.fill(server, self.database)
        self.client: Client = tenant_of(server.url(self.database), work)
        self.client.backup()
        self.then = rich.digest(server, self.database)

    def databases(self) -> list[str]:
        """Every database that begins like ours."""
        with self.server.connect() as connection:
            found = connection.execute("select datname from pg_database order by 1").fetchall()
        return [str(name) for (name,) in found if str(name).startswith(self.database)]

    def spoil(self) -> None:
        """Change something after the snapshot."""
        with self.server.connect(self.database) as connection:
            connection.execute("delete from crm.customer where id > 10")


@pytest.fixture
def saved(postgres: PostgresServer, tmp_path: Path) -> Saved:
    """A database that was backed up and has changed since."""
    made = Saved(postgres, tmp_path)
    made.spoil()
    return made


def test_a_database_that_is_there_is_replaced_only_when_asked(saved: Saved) -> None:
    now = rich.digest(saved.server, saved.database)

    with pytest.raises(WouldOverwrite, match="is there already"):
        restored(saved.client)
    assert rich.digest(saved.server, saved.database) == now

    restored(saved.client, overwrite=True)
    assert rich.digest(saved.server, saved.database) == saved.then
    assert saved.databases() == [saved.database]


def test_whoever_is_connected_is_shown_out_and_comes_back_to_the_restored_one(
    saved: Saved,
) -> None:
    inside = saved.server.connect(saved.database)
    inside.execute("begin")
    inside.execute("select count(*) from crm.customer")
    with saved.server.connect() as neighbour:
        restored(saved.client, overwrite=True)

        assert neighbour.execute("select 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        inside.execute("select 1")
    inside.close()
    assert rich.digest(saved.server, saved.database) == saved.then


def test_a_part_of_a_database_comes_back_beside_it_and_never_in_its_place(saved: Saved) -> None:
    with pytest.raises(WouldOverwrite, match="a part of it"):
        restored(saved.client, overwrite=True, include=("crm.event_*",))

    restored(saved.client, saved.server.url(f"{saved.database}_part"), include=("crm.event_*",))

    part = rich.digest(saved.server, f"{saved.database}_part")
    assert part["crm.event_old"] == saved.then["crm.event_old"]
    assert part["crm.event_new"] == saved.then["crm.event_new"]
    assert part["crm.customer"][0] == 0


def test_a_restore_that_was_stopped_after_any_phase_goes_on_or_back(saved: Saved) -> None:
    now = rich.digest(saved.server, saved.database)
    for phases in range(1, 6):
        plan = saved.client.plan_restore(RestoreRequest(overwrite=True))
        saved.client.begin_restore(plan)
        for phase in list(Phase)[:phases]:
            saved.client.run_phase(plan, phase)

        saved.client.roll_back_restore(plan)

        assert rich.digest(saved.server, saved.database) == now
        assert saved.databases() == [saved.database]
    plan = saved.client.plan_restore(RestoreRequest(overwrite=True))
    saved.client.begin_restore(plan)
    saved.client.run_phase(plan, Phase.INFRASTRUCTURE_PREPARATION)
    saved.client.run_phase(plan, Phase.DATABASE_RESTORE)

    saved.client.carry_out(saved.client.resume_restore(plan.restore))

    assert rich.digest(saved.server, saved.database) == saved.then


def test_rows_that_were_lost_on_the_way_stop_the_restore(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = rich.digest(saved.server, saved.database)
    plan = saved.client.plan_restore(RestoreRequest(overwrite=True))
    saved.client.begin_restore(plan)
    for phase in list(Phase)[:-1]:
        saved.client.run_phase(plan, phase)
    (new,) = (name for name in saved.databases() if "__new_" in name)
    with saved.server.connect(new) as connection:
        connection.execute("delete from crm.parent where a = 1")

    with pytest.raises(ValidationFailed, match=r"crm\.parent"):
        saved.client.carry_out(plan)

    assert rich.digest(saved.server, saved.database) == now
    assert saved.databases() == [saved.database]


def test_a_damaged_pack_leaves_the_database_as_it_was(saved: Saved, tmp_path: Path) -> None:
    now = rich.digest(saved.server, saved.database)
    packs = [path for path in (tmp_path / "acme" / "packs").rglob("*") if path.is_file()]
    pack = max(packs, key=lambda path: path.stat().st_size)
    body = bytearray(pack.read_bytes())
    body[len(body) // 3] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(body)

    with pytest.raises(Damaged):
        restored(saved.client, overwrite=True)

    assert rich.digest(saved.server, saved.database) == now
    assert saved.databases() == [saved.database]


def test_two_tenants_of_one_cluster_do_not_see_each_other(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    one, two = Saved(postgres, tmp_path / "one"), Saved(postgres, tmp_path / "two")
    before = rich.digest(postgres, two.database)
    one.spoil()
    with postgres.connect(two.database) as inside:
        restored(one.client, overwrite=True)

        assert inside.execute("select count(*) from crm.parent").fetchone() is not None
    assert rich.digest(postgres, two.database) == before
    assert rich.digest(postgres, one.database) == one.then


def test_who_is_no_superuser_is_told_before_anything_is_made(saved: Saved) -> None:
    with saved.server.connect() as connection:
        connection.execute("drop role if exists plain")
        connection.execute("create role plain login createdb")

    with pytest.raises(RestoreError, match="no superuser"):
        restored(saved.client, saved.server.url("elsewhere", user="plain"))


def test_a_template_is_never_replaced(saved: Saved) -> None:
    """Its name would change, and the server could not drop it."""
    with pytest.raises(RestoreError, match="is a template"):
        restored(saved.client, saved.server.url("template1"), overwrite=True)

    with saved.server.connect() as connection:
        found = connection.execute("select datname from pg_database where datistemplate order by 1")
        assert found.fetchall() == [("template0",), ("template1",)]


def test_a_target_of_another_kind_is_refused(
    postgres: PostgresServer, saved: Saved, tmp_path: Path
) -> None:
    files = tenant_of(f"files://{tmp_path}", tmp_path / "repository", "files")
    (tmp_path / "file").write_text("text")
    files.backup()

    with pytest.raises(RestoreError, match="no PostgreSQL database"):
        restored(files, postgres.url("elsewhere"))


def test_a_newer_server_takes_it_and_an_older_one_is_refused(tmp_path: Path) -> None:
    with start_postgres(min(VERSIONS)) as old, start_postgres(max(VERSIONS)) as new:
        older, newer = Saved(old, tmp_path / "older"), Saved(new, tmp_path / "newer")

        restored(older.client, new.url("moved"))
        with pytest.raises(RestoreError, match=f"older than the {max(VERSIONS)}"):
            restored(newer.client, old.url("moved"))

        assert rich.digest(new, "moved") == older.then
        with new.connect("moved") as connection:
            role = connection.execute(
                "select rolconnlimit, rolpassword is not null from pg_authid"
                " where rolname = 'Owner of crm'"
            ).fetchone()
        assert role == (7, True)
