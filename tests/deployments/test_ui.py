"""What an operator sees in a browser, taken by headless Chromium; also a picture to look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from kryonix_backup.settings import TenantSettings
from tests.deployments.conftest import Kryonix

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

CHROMIUM = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
PNG = b"\x89PNG\r\n\x1a\n"
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """Every address that the pages asked for."""
    return []


@pytest.fixture(scope="module")
def page(up: dict[str, Any], asked: list[str]) -> Iterator[Page]:
    chromium = shutil.which("chromium")
    assert chromium, "script/test installs Debian's chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: asked.append(request.url))
        yield page
        browser.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``$KRYONIX_SCREENSHOTS`` of whoever wants to look at them, or a temporary place."""
    wished = os.environ.get("KRYONIX_SCREENSHOTS")
    folder = Path(wished) if wished else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def backup(kryonix: Kryonix, acme: TenantSettings) -> dict[str, Any]:
    return kryonix.run("flow", "backup", "acme", "--watch")


def take(page: Page, path: Path) -> None:
    page.screenshot(path=path)
    content = path.read_bytes()
    assert content.startswith(PNG)
    assert len(content) > 20_000


def test_a_run_shows_its_steps_by_names_that_an_operator_knows(
    page: Page, pictures: Path, backup: dict[str, Any]
) -> None:
    page.goto(backup["url"])

    for name in (
        "backup acme full",
        "open the backup of acme",
        "back up documents of acme",
        "back up photos of acme",
        "publish the snapshot of acme",
    ):
        expect(page.get_by_text(name).first).to_be_visible(timeout=PATIENCE_MS)
    page.wait_for_timeout(2000)  # the graph is drawn on a canvas, which tells nobody
    take(page, pictures / "flow-run.png")


def test_a_run_shows_its_table(page: Page, pictures: Path, backup: dict[str, Any]) -> None:
    page.goto(backup["url"])
    page.get_by_text("Artifacts", exact=True).first.click()

    expect(page.get_by_text("backup-acme").first).to_be_visible(timeout=PATIENCE_MS)
    page.wait_for_timeout(1000)
    take(page, pictures / "flow-run-artifacts.png")


def test_the_blocks_of_a_tenant_are_there_with_their_picture(
    page: Page, pictures: Path, up: dict[str, Any], backup: dict[str, Any]
) -> None:
    page.goto(up["url"] + "/blocks")

    for name in ("acme", "acme-primary", "Kryonix Tenant", "Kryonix Region", "Kryonix Key"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=PATIENCE_MS)
    page.wait_for_function(
        "[...document.images].filter(i => i.src.includes('/kryonix/logo.svg')"
        " && i.complete && i.naturalWidth > 0).length >= 3"
    )
    take(page, pictures / "blocks.png")


def test_the_deployments_and_pools_are_there(
    page: Page, pictures: Path, up: dict[str, Any], backup: dict[str, Any]
) -> None:
    page.goto(up["url"] + "/deployments")

    # The first ten of them, in the order of their names.
    for name in ("acme-full", "acme-incremental", "acme", "restore-enterprise", "onboard"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=PATIENCE_MS)
    take(page, pictures / "deployments.png")


def test_the_pages_ask_for_nothing_outside(
    page: Page, asked: list[str], up: dict[str, Any]
) -> None:
    page.goto(up["url"] + "/dashboard")
    page.wait_for_timeout(2000)

    outside = [url for url in asked if not url.startswith((up["url"], "data:", "blob:"))]
    assert asked
    assert not outside
