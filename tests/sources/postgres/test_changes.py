"""A database comes back from an incremental backup as it does from the full one and its log."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.model import BackupKind
from kryonix_backup.testing.postgres import PostgresServer
from tests.sources.postgres import rich
from tests.sources.postgres.engine import restored
from tests.sources.postgres.test_replay import KEYED, LOOSE, Story, without_ours

pytestmark = pytest.mark.service


class Increments(Story):
    """A story that takes incremental backups between its parts."""

    def incremental(self) -> dict[str, Any]:
        """Take one; what its report says of the database."""
        report = self.client.backup(kind=BackupKind.INCREMENTAL).to_plain()
        said: dict[str, Any] = report["sources"]["db"]
        return said

    def increment(self, *parts: tuple[str, ...]) -> None:
        """Run each part, and remember what was there; an incremental backup before the last."""
        for number, part in enumerate(parts):
            self.run(*part)
            self.remember()
            if number == len(parts) - 2:
                said = self.incremental()
                assert (said["kind"], said["why"]) == ("incremental", "")
        self.client.back_up_logs()

    def chosen_at(self, moment: datetime) -> str:
        """The kind of the snapshot that a plan for that moment takes."""
        from kryonix_backup.sdk.client import RestoreRequest

        plan = self.client.plan_restore(RestoreRequest(at=moment))
        return self.client.snapshot(plan.snapshot).kind.value

    def prove_snapshot(self, digest: dict[str, tuple[int, str]], schema: str) -> None:
        """The newest snapshot by itself holds that."""
        target = f"{self.database}_alone"
        restored(self.client, self.server.url(target), overwrite=True)
        assert rich.digest(self.server, target) == digest
        assert without_ours(rich.schema(self.server, target)) == without_ours(schema)


@pytest.fixture
def story(postgres: PostgresServer, tmp_path: Path) -> Increments:
    """A database that nothing was done with."""
    return Increments(postgres, tmp_path)


def test_rows_of_every_kind_come_back_from_one_incremental_and_from_two(story: Increments) -> None:
    story.run(
        KEYED, LOOSE,
        "alter table keyed alter b set storage external",
        "insert into keyed select g, 'a' || g, repeat(md5(g::text), 200)"
        " from generate_series(1, 50) g",
        "insert into loose select g % 5, 'b' from generate_series(1, 50) g",
    )  # fmt: skip
    story.begin()
    story.increment(
        ("insert into keyed values (100, null, E'\\t\\\\N\\n')",
         "insert into loose values (null, null)"),
        ("update keyed set a = 'new' where id < 10", "update loose set b = 'c' where a = 1",
         "update keyed set id = id + 1000 where id between 10 and 20",
         "update keyed set a = 'moved' where id = 1011"),
        ("update keyed set id = -id; update keyed set id = -id where id = -5",),
    )  # fmt: skip
    story.increment(
        ("delete from keyed where id = -7", "insert into keyed values (-7, 'again', 'x')",
         ("update keyed set id = 9999 where id = -1; update keyed set id = -1 where id = -2;"
          " update keyed set id = -2 where id = 9999")),
        ("delete from loose where ctid in (select ctid from loose where a = 2 limit 3)",
         "begin; savepoint s; delete from keyed; rollback to s; delete from loose; commit"),
        ("insert into loose select 1, 'b' from generate_series(1, 3)", "truncate loose, keyed",
         "insert into keyed values (1, 'after', 'truncate')"),
    )  # fmt: skip
    assert [story.chosen_at(moment) for moment, _, _ in story.moments] == [
        "full", "full", "incremental", "incremental", "incremental", "incremental",
    ]  # fmt: skip
    story.prove()
    story.incremental()
    story.prove_snapshot(*story.moments[-1][1:])
