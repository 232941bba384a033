"""The command in this process, and a tenant to use it on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.cli.main import main
from tests.maintenance.logs import logged


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal:
    """Where commands are typed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], root: Path) -> None:
        self._capsys = capsys
        self.root = root

    def __call__(self, *words: str) -> Outcome:
        self._capsys.readouterr()
        code = main(words)
        said = self._capsys.readouterr()
        return Outcome(code, said.out, said.err)

    def url(self, name: str) -> str:
        """A region's address."""
        return f"file://{self.root / name}"

    def source(self, name: str) -> str:
        """A source's or a target's address."""
        return f"files://{self.root / name}"

    def add(self, tenant: str = "acme") -> Outcome:
        """Register a tenant with one region and one source."""
        primary, files = f"primary={self.url(f'{tenant}-primary')}", f"files={self.source('files')}"
        return self("tenant", "add", tenant, "--region", primary, "--source", files)


@pytest.fixture
def kryonix(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Terminal:
    (tmp_path / "key").write_bytes(bytes(range(32)))
    monkeypatch.setenv("KRYONIX_KEY_FILE", str(tmp_path / "key"))
    (tmp_path / "files" / "deep").mkdir(parents=True)
    (tmp_path / "files" / "deep" / "letter.txt").write_text("dear reader\n")
    (tmp_path / "files" / "numbers").write_bytes(bytes(range(256)) * 1024)
    return Terminal(capsys, tmp_path)


@pytest.fixture
def backed_up(kryonix: Terminal) -> Terminal:
    """With one tenant and one snapshot."""
    assert kryonix.add().code == 0
    assert kryonix("backup", "acme").code == 0
    return kryonix


@pytest.fixture
def with_log(kryonix: Terminal) -> Terminal:
    """With a repository that has a log, at ``primary`` under the root, and no registered tenant."""
    (kryonix.root / "key").write_bytes(bytes([7]) * 32)
    for name, body in logged().store.objects.items():
        path = kryonix.root / "primary" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return kryonix
