"""
Secrets are where they have to be, and nowhere else (docs/secrets.md).

All of `secret_story` happens once; then every secret that was used in it, and every key that it
made, is looked for in everything that is left, and in everything that could be seen meanwhile.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from kryonix_backup.model import TenantId
from kryonix_backup.settings import RootKey, Secret
from kryonix_backup.storage.registry import open_store
from kryonix_backup.storage.residency import Residency
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.testing.key_stores import SoftHsm
from kryonix_backup.testing.postgres import start_postgres, versions
from kryonix_backup.testing.s3_servers import S3Server
from tests.integration.hunt import Hunt
from tests.integration.opened_keys import escrow_key, keys_of
from tests.integration.secret_story import Story, two_tokens
from tests.integration.watching import Seen, Watch
from tests.services.s3 import seaweedfs
from tests.services.softhsm import softhsm

__all__ = ["seaweedfs", "softhsm"]

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]


@dataclass
class Told:
    """The story, what to look for, and what Prefect's folder held while it ran."""

    story: Story
    hunt: Hunt
    running: Path
    keys: int

    def store(self, name: str) -> ObjectStore:
        """A tenant's repository, by the pair that is kept for it."""
        return _store(self.story, name)


def _store(story: Story, name: str) -> ObjectStore:
    region = story.settings(name).primary
    return open_store(region, {"KRYONIX_HOME": str(story.home)}, Residency(TenantId(name)))


def _root(story: Story, name: str) -> RootKey:
    if name in story.tokens:
        return story.tokens[name].root
    return RootKey(passphrase=Secret(story.words[f"{name}'s second passphrase"]))


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, seaweedfs: S3Server, softhsm: SoftHsm
) -> Iterator[Told]:
    root = tmp_path_factory.mktemp("secrets")
    base = tmp_path_factory.getbasetemp()
    with (
        start_postgres(versions()[-1]) as postgres,
        Watch(root / "tmp", base, Path(sys.prefix).parent) as watch,  # a checkout may lie in /tmp
    ):
        story = Story(root, seaweedfs, postgres, two_tokens(softhsm), watch)
        try:
            story.tell()
            shutil.copytree(story.home / "prefect", root / "running")
        finally:
            story.run("down", door="flows")
        (root / "postgres.log").write_bytes(postgres.log.read_bytes())
        hunt, keys = _hunt(story)
        yield Told(story, hunt, root / "running", keys)


def _hunt(story: Story) -> tuple[Hunt, int]:
    hunt = Hunt()
    for name, secret in story.words.items():
        hunt.add(name, secret)
    hunt.add_all(story.raw)
    shares = [secret for name, secret in story.words.items() if name.startswith("share ")]
    for number, share in enumerate(shares):
        words = share.split()  # the first four say only which escrow and which share it is
        for start in range(4, len(words) - 4):
            hunt.add(f"a part of share {number}", " ".join(words[start : start + 5]))
    hunt.add("the key of the escrow", escrow_key(shares[:2]))
    hunt.add("Prefect's key", (story.home / "prefect/encryption.key").read_text().strip())
    count = 0
    for name in ("acme", "beta", "gamma", "delta"):
        keys = keys_of(TenantId(name), _store(story, name), _root(story, name))
        hunt.add_all(keys)
        count += len(keys)
    return hunt, count


def _clean(hunt: Hunt, bodies: dict[str, bytes]) -> dict[str, set[str]]:
    return {name: found for name, body in bodies.items() if (found := hunt.found(body))}


def test_everything_was_done_and_what_was_to_fail_has_failed(told: Told) -> None:
    failed = {name: json.dumps(answer) for name, answer in told.story.failures.items()}

    assert len(told.story.said) > 30
    assert told.keys > 100
    for name, kind in {
        "wrong passphrase": "KeyRefused",
        "wrong PIN": "KeyStoreUnusable",
        "wrong S3 secret": "StoreDenied",
        "wrong database password": "SourceDenied",
        "too few shares": "KeyRefused",
    }.items():
        assert kind in failed[name], failed[name]
    for name, words in {
        "wrong passphrase in a flow": "passphrase",
        "wrong PIN in a flow": "PIN",
        "wrong S3 secret in a flow": "StoreDenied",
        "wrong database password in a flow": "password authentication failed",
    }.items():
        assert words in failed[name], failed[name]


def test_no_command_says_a_secret(told: Told) -> None:
    said = {name: text.encode() for name, text in told.story.said.items()}

    assert any(b"Traceback" in text for text in said.values()), "also where it fails verbosely"
    assert not _clean(told.hunt, said)


def test_no_secret_is_an_argument_of_a_program(told: Told) -> None:
    commands = {each.command for each in told.story.watch.programs}

    assert any(b"pg_dump" in command for command in commands)
    assert any(b"deployments.engine" in command for command in commands)
    assert not _clean(told.hunt, {repr(command): command for command in commands})


def _is_ours(seen: Seen) -> bool:
    """Whether it is one of our own processes that open keys, or what starts such a one."""
    words = seen.command.split(b"\0")
    ours = any(word.endswith(b"/kryonix") for word in words)
    return ours or b"deployments.worker" in words or b"deployments.engine" in words


def test_a_program_is_given_no_secret_that_it_does_not_need(told: Told) -> None:
    """A worker, and the command, have in their environment what they were given, and no key."""
    given = " ".join(
        [*told.story.environment("command").values(), *told.story.environment("flows").values()]
    )
    words = told.story.words
    for_us = told.hunt.found(given.encode()) | {
        "beta's second passphrase", "delta's second passphrase", "wrong passphrase", "wrong PIN",
    }  # fmt: skip

    leaked = {}
    for seen in told.story.watch.programs:
        allowed = for_us if _is_ours(seen) else set()
        if found := told.hunt.found(seen.environment) - allowed:
            leaked[seen.command.replace(b"\0", b" ").decode()] = found
    servers = [each for each in told.story.watch.programs if b"deployments.server" in each.command]
    own = {"Prefect's key"}
    assert {"acme's PIN", "delta's passphrase", "operator's S3 secret"} <= for_us <= set(words)
    assert servers
    assert all(found <= own for name, found in leaked.items() if "deployments.server" in name)
    # Prefect's own server asks `file` about Python while it is imported: docs/secrets.md says so.
    asked = {name for name, found in leaked.items() if name.startswith("file -b ") and found <= own}
    assert not [name for name in leaked.keys() - asked if "deployments.server" not in name], leaked


def test_temporary_files_hold_no_secret(told: Told) -> None:
    watch = told.story.watch

    assert watch.files, "something lay in one"
    assert not told.hunt.found(b"\0".join(watch.files))
    assert not told.hunt.in_files(told.story.root / "tmp")
    assert not watch.strays, "and all of them were where TMPDIR says"


def test_the_home_holds_key_pairs_and_prefects_key_each_in_its_file(told: Told) -> None:
    expected = {
        "credentials/acme/primary": {"acme's S3 secret"},
        "credentials/gamma/primary": {"gamma's S3 secret"},
        "prefect/encryption.key": {"Prefect's key"},
    }
    home = told.story.home

    assert told.hunt.in_files(home) == expected
    assert all((home / name).stat().st_mode & 0o777 == 0o600 for name in expected)
    assert not told.hunt.in_files(told.story.root / "user"), "nor the user's own home"
    assert not told.hunt.found((told.story.root / "postgres.log").read_bytes())


def test_prefects_database_holds_key_pairs_of_regions_encrypted_and_no_other(told: Told) -> None:
    assert told.hunt.in_files(told.running) == {"encryption.key": {"Prefect's key"}}, (
        "while it runs, with its write-ahead log"
    )
    fernet = Fernet((told.story.home / "prefect/encryption.key").read_bytes().strip())
    with sqlite3.connect(told.story.home / "prefect/prefect.db") as database:
        rows = dict(database.execute("select name, data from block_document"))
        logs = " ".join(row for (row,) in database.execute("select message from log"))
        variables = database.execute("select count(*) from variable").fetchone()
    database.close()
    opened = {name: fernet.decrypt(json.loads(data)) for name, data in rows.items()}

    assert {"gamma", "gamma-primary", "delta", "delta-primary"} <= set(opened)
    # The wrong one was deployed last; what stood there before is gone.
    assert _clean(told.hunt, opened) == {"gamma-primary": {"wrong S3 secret"}}
    assert "publish" in logs
    assert variables == (0,)


@pytest.mark.parametrize("name", ["acme", "beta", "gamma", "delta"])
def test_a_repository_holds_no_key_in_clear(told: Told, name: str) -> None:
    store = told.store(name)
    objects = {info.name: store.get(info.name) for info in store.list("")}

    assert any(each.startswith("packs/") for each in objects)
    assert not _clean(told.hunt, {each: each.encode() + body for each, body in objects.items()})


def test_no_process_that_holds_keys_leaves_a_core(told: Told) -> None:
    assert len(told.story.cores) == 3, "a command, the server and a worker"
    assert {tuple(line.split()[4:6]) for line in told.story.cores} == {("0", "0")}
