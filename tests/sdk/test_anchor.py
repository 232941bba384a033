"""What a machine has seen is kept, only grows, and is never guessed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kryonix_backup.errors import ConfigError, RolledBack
from kryonix_backup.model import RepositoryId, TenantId
from kryonix_backup.repository.audit_record import Head
from kryonix_backup.sdk.anchor import Anchor

ONE, TWO = RepositoryId("1" * 32), RepositoryId("2" * 32)
PLACE = "s3://bucket?endpoint=http://host:9000"


def head(sequence: int) -> Head:
    return Head(sequence, sequence.to_bytes(32))


@pytest.fixture
def anchor(tmp_path: Path) -> Anchor:
    return Anchor(tmp_path, TenantId("acme"))


def test_nothing_is_known_at_first(anchor: Anchor, tmp_path: Path) -> None:
    assert anchor.seen(PLACE, ONE) is None
    assert not any(tmp_path.iterdir()), "looking writes nothing"


def test_the_newest_record_counts(anchor: Anchor) -> None:
    for sequence in (3, 7, 5):
        anchor.advance(PLACE, ONE, head(sequence))
    anchor.advance("file:///elsewhere", ONE, head(1))

    assert anchor.seen(PLACE, ONE) == head(7)
    assert anchor.seen("file:///elsewhere", ONE) == head(1)
    anchor.forget(PLACE)
    anchor.forget(PLACE)
    assert anchor.seen(PLACE, ONE) is None


def test_another_repository_at_the_place_is_told(anchor: Anchor) -> None:
    anchor.advance(PLACE, ONE, head(3))
    with pytest.raises(RolledBack, match="another repository"):
        anchor.seen(PLACE, TWO)
    anchor.advance(PLACE, TWO, head(1))
    assert anchor.seen(PLACE, TWO) == head(1)


def test_writers_at_once_lose_nothing(anchor: Anchor) -> None:
    def write(number: int) -> None:
        anchor.advance(f"memory://{number % 4}", ONE, head(number + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(80)))
    for number in range(4):
        seen = anchor.seen(f"memory://{number}", ONE)
        assert seen == head(77 + number)


def test_only_its_owner_may_read_it(anchor: Anchor, tmp_path: Path) -> None:
    anchor.advance(PLACE, ONE, head(1))
    path = tmp_path / "anchors" / "acme.json"
    assert path.stat().st_mode & 0o077 == 0
    assert "3131" not in path.read_text(), "a hash is no secret, and nothing else is in it"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 9, "chains": {}}',
        '{"format": 1, "chains": {"a": {"hash": "x"}}}',
    ],
)
def test_what_is_no_anchor_is_not_passed_over(anchor: Anchor, tmp_path: Path, text: str) -> None:
    anchor.advance(PLACE, ONE, head(1))
    path = tmp_path / "anchors" / "acme.json"
    assert json.loads(path.read_text())["format"] == 1
    path.write_text(text)
    with pytest.raises(ConfigError):
        anchor.seen(PLACE, ONE)


def test_a_keyring_that_was_set_back_is_noticed(anchor: Anchor) -> None:
    anchor.advance(PLACE, ONE, head(3), 2)
    anchor.advance(PLACE, ONE, head(2), 4)

    assert anchor.seen(PLACE, ONE, 4) == head(3)
    assert anchor.seen(PLACE, ONE, 5) == head(3)
    with pytest.raises(RolledBack, match=r"keyring 4.*and 3 is the newest"):
        anchor.seen(PLACE, ONE, 3)
    anchor.advance(PLACE, TWO, head(1), 1)
    assert anchor.seen(PLACE, TWO, 1) == head(1)


def test_what_cannot_be_forgotten_is_told(tmp_path: Path) -> None:
    (tmp_path / "anchors").write_text("in the way")

    with pytest.raises(ConfigError, match="cannot be written"):
        Anchor(tmp_path, TenantId("acme")).forget("file:///x")
