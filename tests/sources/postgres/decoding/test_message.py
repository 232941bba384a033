"""Only what has our form is taken for ours."""

from __future__ import annotations

import json

import pytest

from kryonix_backup.errors import Damaged
from kryonix_backup.sources.postgres.decoding.message import Beat, Ddl, Sequence, parse, told

BEAT = {"kind": "beat", "sequences": [["s", "n", 7], ["s", "never", None]],
        "publication": 5, "before": 9}  # fmt: skip
DDL = {"kind": "ddl", "tag": "DROP TABLE", "query": "drop table t", "search_path": "public",
       "role": "r", "missing": [["s", "t", "c", "v"]], "opaque": "",
       "settings": {"DateStyle": "ISO, MDY"}}  # fmt: skip


def _said(plain: object) -> bytes:
    return json.dumps(plain).encode()


def test_both_kinds_are_read() -> None:
    sequences = (Sequence("s", "n", 7), Sequence("s", "never", None))
    assert parse(_said(BEAT)) == Beat(sequences, 5, 9)
    ddl = Ddl("DROP TABLE", "drop table t", "public", "r", (("s", "t", "c", "v"),), "",
              (("DateStyle", "ISO, MDY"),))  # fmt: skip
    assert parse(_said(DDL)) == ddl
    assert told((b"1", _said(DDL))) == ddl


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"[]", b"null", b"{}", _said({"kind": "other"}),
        *(_said({key: value for key, value in DDL.items() if key != lost}) for lost in DDL),
        *(_said({key: value for key, value in BEAT.items() if key != lost}) for lost in BEAT),
        *(_said({**DDL, key: 5}) for key in DDL),
        _said({**BEAT, "sequences": [["s"]]}), _said({**BEAT, "before": "x"}),
        _said({**BEAT, "sequences": [["s", "n", "text"]]}), _said({**BEAT, "sequences": 5}),
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_has_another_form_is_damaged(content: bytes) -> None:
    with pytest.raises(Damaged, match="a message of ours"):
        parse(content)


@pytest.mark.parametrize("row", [None, (), (b"1",), (b"1", None), (b"1", _said(BEAT))])
def test_a_row_that_tells_no_change_of_the_schema_is_damaged(row: tuple[object, ...]) -> None:
    with pytest.raises(Damaged):
        told(row)
