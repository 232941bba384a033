"""An answer is one JSON object or lines, never both."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kryonix_backup.cli.answer import Answer, _json, answers, log_to_stderr

VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())


def _run(answer: Answer, *words: str) -> Any:
    @click.command()
    @answers
    def command() -> Answer:
        return answer

    return command.main(list(words), standalone_mode=False)


def _never() -> Iterator[Any]:
    yield from ()
    raise AssertionError("read in vain")


def test_only_what_is_printed_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(Answer({"a": 1}, _never(), 3), "--json") == 3
    assert json.loads(capsys.readouterr().out) == {"a": 1}

    assert _run(Answer({"a": _never()}, ["one", b"two\n"])) == 0


def test_bytes_are_written_as_they_are(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    _run(Answer({}, [memoryview(b"\xff\x00"), b"\n"]))

    assert capsysbinary.readouterr().out == b"\xff\x00\n"


def test_a_function_is_called_for_json(capsys: pytest.CaptureFixture[str]) -> None:
    _run(Answer(lambda: {"late": True}, []), "--json")

    assert json.loads(capsys.readouterr().out) == {"late": True}


@given(st.dictionaries(st.text(), VALUES), st.lists(VALUES, max_size=5))
def test_a_streamed_list_is_the_same_json(plain: dict[str, Any], items: list[Any]) -> None:
    streamed = "".join(_json({**plain, "items": iter(items)}))

    assert json.loads(streamed) == {**plain, "items": items}


def _fails() -> Iterator[Any]:
    yield from ()
    raise ValueError("nothing there")


def test_what_fails_before_its_first_item_has_printed_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValueError, match="nothing there"):
        _run(Answer({"a": 1, "items": _fails()}, []), "--json")

    assert capsys.readouterr().out == ""


def test_logs_name_their_fields_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose, expected in (
        (False, ["warning: seen size=3"]),
        (True, ["info: told", "warning: seen size=3"]),
    ):
        log_to_stderr(verbose=verbose)
        log = logging.getLogger("kryonix_backup.tests")
        log.info("told")
        log.warning("seen", extra={"size": 3})
        said = capsys.readouterr()
        assert [line.partition("Z ")[2] for line in said.err.splitlines()] == expected
        assert said.out == ""
    logging.getLogger("kryonix_backup").setLevel(logging.NOTSET)
