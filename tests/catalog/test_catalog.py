"""The catalog holds every run once, whatever crashes between the outbox and its tables."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kryonix_backup.catalog.catalog import Catalog
from kryonix_backup.catalog.outbox import Outbox
from kryonix_backup.errors import CatalogUnusable
from kryonix_backup.model import TenantId
from tests.catalog.conftest import NOON, MakeRun, MakeSnapshot

ACME = TenantId("acme")


def test_waiting_records_are_taken_in(
    url: str, outbox: Outbox, make_run: MakeRun, make_snapshot: MakeSnapshot
) -> None:
    outbox.put(make_run(), make_snapshot())

    with Catalog.open(url, outbox) as catalog:
        assert catalog.runs(ACME) == [make_run()]
        assert catalog.snapshots(ACME) == [make_snapshot()]
    assert list(outbox.letters()) == []


def test_a_record_that_is_taken_in_twice_is_one_run(
    url: str, outbox: Outbox, make_run: MakeRun, make_snapshot: MakeSnapshot, tmp_path: Path
) -> None:
    """As after a crash between the commit and the removal of the file."""
    outbox.put(make_run(), make_snapshot())
    (path,) = (tmp_path / "outbox").iterdir()
    body = path.read_bytes()

    for _ in range(2):
        path.write_bytes(body)
        with Catalog.open(url, outbox) as catalog:
            assert catalog.runs(ACME) == [make_run()]
            assert len(catalog.snapshots(ACME)) == 1


def test_a_process_killed_before_the_commit_loses_no_record(
    url: str, outbox: Outbox, make_run: MakeRun
) -> None:
    outbox.put(make_run())
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from kryonix_backup.catalog import catalog\n"
        "from kryonix_backup.catalog.outbox import Outbox\n"
        "put = catalog._put_run\n"
        "def die(connection, run):\n"
        "    put(connection, run)\n"
        "    os.kill(os.getpid(), 9)\n"
        "catalog._put_run = die\n"
        "catalog.Catalog.open(sys.argv[1], Outbox(Path(sys.argv[2])))\n"
    )
    command = [sys.executable, "-c", script, url, str(outbox._directory)]
    assert subprocess.run(command, check=False).returncode == -9

    assert len(list(outbox.letters())) == 1
    with Catalog.open(url, outbox) as catalog:
        assert catalog.runs(ACME) == [make_run()]


def test_the_last_record_of_a_run_counts_in_any_order(
    url: str, outbox: Outbox, make_run: MakeRun
) -> None:
    failed, done = make_run(status="failed", error="cut off"), make_run(after_s=9)
    for first, second in ((failed, done), (done, failed)):
        outbox.put(first)
        Catalog.open(url, outbox).close()
        outbox.put(second)
        with Catalog.open(url, outbox) as catalog:
            assert catalog.runs(ACME) == [done]


def test_tenants_do_not_see_each_other(
    url: str, outbox: Outbox, make_run: MakeRun, make_snapshot: MakeSnapshot
) -> None:
    for tenant in ("acme", "rival"):
        outbox.put(make_run(tenant=tenant), make_snapshot(tenant=tenant))
    with Catalog.open(url, outbox) as catalog:
        catalog.replace(ACME, [], [])

        assert catalog.snapshots(ACME) == []
        assert [run.tenant for run in catalog.runs(ACME)] == ["acme"]
        assert [each.tenant for each in catalog.snapshots(TenantId("rival"))] == ["rival"]


def test_runs_come_newest_first_and_not_more_than_asked(
    url: str, outbox: Outbox, make_run: MakeRun
) -> None:
    for hour in (2, 0, 1):
        started = NOON + timedelta(hours=hour)
        outbox.put(make_run(f"r{hour}", started=started, finished=started))

    with Catalog.open(url, outbox) as catalog:
        assert [run.run for run in catalog.runs(ACME)] == ["r2", "r1", "r0"]
        assert [run.run for run in catalog.runs(ACME, 2)] == ["r2", "r1"]


def test_figures_beyond_32_bits_and_fractions_of_seconds_come_back(
    url: str, outbox: Outbox, make_run: MakeRun
) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    run = make_run(bytes_read=1 << 45, started=moment, finished=moment, error="x" * 5000)
    outbox.put(run)

    with Catalog.open(url, outbox) as catalog:
        assert catalog.runs(ACME) == [run]


def test_processes_that_open_a_new_catalog_at_once_agree(
    url: str, outbox: Outbox, make_run: MakeRun
) -> None:
    for number in range(20):
        outbox.put(make_run(f"r{number}"))

    with ThreadPoolExecutor(6) as pool:
        opened = [pool.submit(Catalog.open, url, outbox) for _ in range(6)]
    for each in opened:
        with each.result() as catalog:
            assert len(catalog.runs(ACME)) == 20


def test_a_file_that_is_no_database_is_named(tmp_path: Path, outbox: Outbox) -> None:
    (tmp_path / "catalog.db").write_bytes(b"anything but a database" * 100)

    with pytest.raises(CatalogUnusable, match=r"catalog\.db cannot be used: file is not"):
        Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}", outbox)


@pytest.mark.parametrize(
    "url", ["nonsense", "oracle+nodriver://host/db", "sqlite:////none/such/c.db"]
)
def test_an_address_that_cannot_be_used_is_told(url: str, outbox: Outbox) -> None:
    with pytest.raises(CatalogUnusable):
        Catalog.open(url, outbox)


def test_a_password_in_the_address_is_not_told(outbox: Outbox, tmp_path: Path) -> None:
    with pytest.raises(CatalogUnusable) as caught:
        Catalog.open("sqlite://user:hunter2@/none/such.db", outbox)
    assert "hunter2" not in str(caught.value)


def test_a_catalog_of_a_later_version_is_refused(url: str, outbox: Outbox) -> None:
    with Catalog.open(url, outbox) as catalog, catalog._transaction() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '9999'")

    with pytest.raises(CatalogUnusable, match="9999"):
        Catalog.open(url, outbox)
