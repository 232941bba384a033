"""``kryonix up`` in a home of its own, once for all tests that need it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.settings import TenantSettings
from kryonix_backup.tenancy.registry import Registry

AUDIT = Path(__file__).with_name("audit")
MIB = 1 << 20
PASSPHRASE = "correct horse battery staple"


@dataclass(frozen=True)
class Kryonix:
    """The command, in an environment of its own."""

    env: dict[str, str]
    root: Path

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The command, running."""
        code = "import sys; from kryonix_backup.cli.main import main; sys.exit(main())"
        return subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env=self.env, cwd=self.root, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str, code: int = 0) -> dict[str, Any]:
        """What the command answers with --json."""
        with self.start(*words, "--json") as process:
            out, err = process.communicate(timeout=110)
        assert process.returncode == code, (out, err, self.logs())
        answer: dict[str, Any] = json.loads(out)
        return answer

    def logs(self) -> str:
        """The end of every log of the local server."""
        logs = sorted((self.root / "home/prefect").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-4000:]}" for log in logs)

    def add_tenant(self, name: str, tier: str, **sources: Path) -> TenantSettings:
        """Register a tenant whose repository is made by the onboarding."""
        settings = TenantSettings.from_plain(
            {
                "id": name,
                "tier": tier,
                "regions": [{"name": "primary", "url": f"file://{self.root}/{name}-primary"}],
                "sources": [
                    {"name": source, "url": f"files://{path}"} for source, path in sources.items()
                ],
            }
        )
        Registry.at(self.env).add(settings)
        return settings

    def packs(self, tenant: str) -> dict[str, int]:
        """The tenant's packs, with their sizes."""
        folder = self.root / f"{tenant}-primary/packs"
        return {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def kryonix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kryonix]:
    root = tmp_path_factory.mktemp("up")
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "KRYONIX_HOME": str(root / "home"),
        "KRYONIX_PASSPHRASE": PASSPHRASE,
        "KRYONIX_TEST_OUTBOUND": str(root / "outbound"),
        "PYTHONPATH": str(AUDIT),
    }
    kryonix = Kryonix(env, root)
    yield kryonix
    kryonix.run("down")
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def up(kryonix: Kryonix) -> dict[str, Any]:
    """A local server with its workers; what ``kryonix up`` said."""
    return kryonix.run("up")


@pytest.fixture(scope="session")
def acme(kryonix: Kryonix, up: dict[str, Any]) -> TenantSettings:
    """An onboarded tenant of the standard tier with two small sources."""
    for name in ("documents", "photos"):
        folder = kryonix.root / "acme" / name
        folder.mkdir(parents=True)
        (folder / "letter.txt").write_text("dear acme\n" * 10_000)
        (folder / "picture.bin").write_bytes(os.urandom(2 * MIB))
    sources = {name: kryonix.root / "acme" / name for name in ("documents", "photos")}
    settings = kryonix.add_tenant("acme", "standard", **sources)
    assert kryonix.run("flow", "onboard", "acme", "--watch")["state"] == "Completed"
    return settings
