"""`kryonix source` says what a source lacks, gives it that, and takes it away again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from kryonix_backup.sources.postgres.server.address import slot_name
from kryonix_backup.testing.postgres import PostgresServer, start_postgres, versions
from tests.cli.conftest import Outcome, Terminal
from tests.services import postgres as services

pytestmark = pytest.mark.service

postgres = services.postgres


class Database:
    """A tenant whose sources are a database ``db`` and a directory ``files``."""

    def __init__(self, kryonix: Terminal, server: PostgresServer, user: str = "postgres") -> None:
        self.kryonix = kryonix
        self.server = server
        self.name = services.new_database(server)
        self.slot = slot_name(self.name)
        url = server.url(self.name, user)
        added = kryonix(
            "tenant", "add", "acme", "--region", f"primary={kryonix.url('primary')}",
            "--source", f"db={url}", "--source", f"files={kryonix.source('files')}",
        )  # fmt: skip
        assert added.code == 0

    def __call__(self, command: str, *words: str, source: str = "db") -> Outcome:
        return self.kryonix("source", command, "acme", source, *words)

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Run it as a superuser; its rows."""
        with self.server.connect(self.name) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def slots(self) -> list[tuple[object, ...]]:
        """The slots of the database."""
        return self.run(
            "select slot_name::text from pg_replication_slots where database = current_database()"
        )


@pytest.fixture
def db(kryonix: Terminal, postgres: PostgresServer) -> Database:
    return Database(kryonix, postgres)


def test_a_database_that_only_backups_are_taken_of_is_well(db: Database) -> None:
    said = db("check", "--json")

    assert (said.code, said.json["status"]) == (0, "pass")
    assert set(said.json) == {"tenant", "source", "status", "findings"}
    assert {"what", "passed", "evidence", "mend"} == set(said.json["findings"][0])
    (log,) = [each for each in said.json["findings"] if each["what"].startswith("log")]
    assert "not prepared" in log["evidence"]
    assert "'kryonix source prepare acme db' begins a log" in log["evidence"]
    shown = db("check")
    assert (shown.code, "FAIL" in shown.out) == (0, False)
    assert db.kryonix("doctor").code == 0


def test_a_server_without_a_logical_log_can_be_backed_up(kryonix: Terminal) -> None:
    with start_postgres(versions()[0], {"wal_level": "replica"}) as server:
        db = Database(kryonix, server)
        checked, prepared, doctor = db("check"), db("prepare"), kryonix("doctor")

        assert (checked.code, doctor.code) == (0, 0)
        assert "it lacks: wal_level (replica)" in checked.out
        assert prepared.code == 64
        assert "wal_level: replica" in prepared.err
        assert "alter system set wal_level = 'logical'" in prepared.err


def test_a_log_that_would_fill_the_disk_fails_the_check(db: Database) -> None:
    assert db("prepare").code == 0
    said = db("check", "--json")
    failed = {each["what"]: each for each in said.json["findings"] if not each["passed"]}

    assert said.code == 60
    assert set(failed) == {"log: max_slot_wal_keep_size"}
    assert "FAIL  log: max_slot_wal_keep_size" in db("check").out
    assert db.kryonix("doctor").code == 60
    db("release")
    assert db("check").code == 0


def test_what_mends_a_source_is_told_with_its_names(db: Database) -> None:
    assert db("prepare").code == 0
    db.run("drop event trigger kryonix_ddl_command_end")
    db.run('create table "An ID NAME" (a int)')
    said = db("check")
    db("release")

    assert said.code == 60
    assert 'alter table "public"."An ID NAME" replica identity full' in said.out
    assert "kryonix source prepare acme db --replica-identity-full" in said.out
    assert "log: prepared: kryonix source prepare acme db" in said.out
    assert "prepare ID" not in said.out


def test_prepare_is_shown_then_done_once(db: Database) -> None:
    shown = db("prepare", "--dry-run")
    plan = db("prepare", "--dry-run", "--json")
    assert (shown.code, plan.code) == (0, 0)
    assert f"create publication {db.slot} for all tables;" in shown.out.splitlines()
    assert plan.json["dry_run"] is True
    assert set(plan.json) == {"tenant", "source", "dry_run", "steps"}
    assert db.slots() == []

    done = db("prepare", "--json")
    assert (done.code, done.json["steps"]) == (0, plan.json["steps"])
    assert db.slots() == [(db.slot,)]
    again = db("prepare")
    assert again.code == 0
    assert "nothing was missing" in again.out

    released = db("release", "--json")
    assert released.code == 0
    assert f"slot {db.slot}" in released.json["removed"]
    assert db.slots() == []
    assert db("release").out == "there was nothing to remove\n"


def test_a_table_is_only_changed_with_consent(db: Database) -> None:
    db.run("create table plain (a int)")
    refused = db("prepare")

    assert refused.code == 64
    assert '"public"."plain"' in refused.err
    assert db.slots() == []
    assert db("prepare", "--replica-identity-full").code == 0
    db.run("update plain set a = 1")
    assert "removed replica identity of" in db("release").out


@pytest.mark.parametrize("command", ["check", "prepare", "release"])
def test_what_is_not_there_is_said(db: Database, command: str) -> None:
    unknown = db(command, source="nothing")
    nobody = db.kryonix("source", command, "nobody", "db")

    assert (unknown.code, nobody.code) == (10, 12)
    assert "has no source 'nothing'" in unknown.err
    assert "Traceback" not in unknown.err + nobody.err
    assert db.kryonix("source", command, "acme").code == 2


def test_a_directory_has_no_log(db: Database) -> None:
    assert db("check", source="files").code == 0
    for command in ("prepare", "release"):
        said = db(command, source="files")
        assert said.code == 2
        assert "nothing to prepare" in said.err


def test_a_server_that_is_gone_is_a_failed_check(kryonix: Terminal) -> None:
    with start_postgres(versions()[0]) as server:
        db = Database(kryonix, server)
    checked, prepared = db("check"), db("prepare")

    assert checked.code == 60
    assert "FAIL  the database postgresql://" in checked.out
    assert prepared.code == 34
    assert "Traceback" not in checked.err + prepared.err


def test_a_role_without_rights_is_told_what_to_do(
    kryonix: Terminal, postgres: PostgresServer
) -> None:
    with postgres.connect() as connection:
        connection.execute("drop role if exists replicator")
        connection.execute("create role replicator login replication")
    db = Database(kryonix, postgres, "replicator")
    said = db("prepare")

    assert said.code == 63
    assert "let one run what" in said.err
    assert db("release").out == "there was nothing to remove\n"
    assert db.slots() == []


def test_a_log_is_followed_until_ctrl_c(kryonix: Terminal, postgres: PostgresServer) -> None:
    db = Database(kryonix, postgres)
    assert db("prepare").code == 0
    command = "import sys; from kryonix_backup.cli.main import main; sys.exit(main())"
    words = ["backup", "acme", "--kind", "log", "--follow", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", command, *words], env=dict(os.environ),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline() == "db: starting\n"
        while not services.is_followed(db.server, db.name):
            assert process.poll() is None
        db.run("create table t (a int)")
        process.send_signal(signal.SIGINT)
        said, told = process.stdout.read(), process.stderr.read()

    assert process.returncode == 0
    assert "what was committed until now is kept" in told
    report = json.loads(said)["sources"]["db"]
    assert report["commits"] >= 1
    assert report["restorable"] is not None
    refused = kryonix("backup", "acme", "--follow")
    assert (refused.code, "--kind log" in refused.err) == (2, True)
    db("release")
