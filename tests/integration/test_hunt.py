"""What looks for secrets finds them: each is planted on purpose."""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from kryonix_backup.cli.answer import log_to_stderr
from tests.integration.hunt import Hunt

WORD = 'open sesame / ünïcode+"quoted"'
KEY = bytes(range(200, 232))


def _log(secret: bytes) -> bytes:
    return b"07:00:01Z debug: opened with=" + secret + b" tries=1\n"


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": _log,
    "hexadecimal": lambda secret: secret.hex().encode(),
    "HEXADECIMAL": lambda secret: secret.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64 in a pickle": lambda secret: base64.b64encode(pickle.dumps({"a": [1, secret]})),
    "base64 for URLs": lambda secret: base64.urlsafe_b64encode(b"x" + secret),
    "a pickle": pickle.dumps,
    "Python's words": lambda secret: repr({"key": secret}).encode(),
    "Python's words in JSON": lambda secret: json.dumps({"m": repr(secret)}).encode(),
}


@pytest.mark.parametrize("secret", [WORD.encode(), KEY], ids=["word", "key"])
@pytest.mark.parametrize("way", WAYS)
def test_a_planted_secret_is_found(way: str, secret: bytes) -> None:
    hunt = Hunt()
    hunt.add("it", secret)
    hunt.add("another", os.urandom(32))

    for before in range(4):
        assert hunt.found(WAYS[way](bytes(before) + secret + b"rest")) == {"it"}
    assert hunt.found(WAYS[way](secret[:-1] + b"?")) == set()


def test_text_is_found_as_programs_escape_it() -> None:
    hunt = Hunt()
    hunt.add("it", WORD)

    assert hunt.found(json.dumps({"a": WORD}).encode()) == {"it"}
    assert hunt.found(WORD.encode("utf-16")) == {"it"}


def test_a_secret_in_a_log_a_database_and_a_name_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hunt = Hunt()
    hunt.add("it", WORD)
    log_to_stderr(verbose=True)
    logging.getLogger("kryonix_backup.planted").debug("opened", extra={"passphrase": WORD})
    (tmp_path / "log").write_text(capsys.readouterr().err)
    with sqlite3.connect(tmp_path / "db") as database:
        database.execute("create table t (a text)")
        database.execute("insert into t values (?)", (WORD,))
    database.close()
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / WORD.encode().hex()).touch()
    (tmp_path / "clean").write_text("nothing")

    found = hunt.in_files(tmp_path)

    assert found == {name: {"it"} for name in ("db", f"dir/{WORD.encode().hex()}", "log")}


def test_what_would_be_found_by_chance_is_refused() -> None:
    with pytest.raises(AssertionError, match="by chance"):
        Hunt().add("it", "short")
