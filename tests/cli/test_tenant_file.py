"""A file that is not of a tenant's form is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from kryonix_backup.cli.tenant_file import read_tenant_file
from kryonix_backup.errors import ConfigError


def test_settings_are_read(tmp_path: Path) -> None:
    file = tmp_path / "tenant.yaml"
    file.write_text("id: acme\ntier: standard\nregions: []\n")

    assert read_tenant_file(file) == {"id": "acme", "tier": "standard", "regions": []}


@pytest.mark.parametrize(
    "text",
    ["", "- a", "a: [", "colour: blue", "regions: x", "sources: [x]", "residency: br",
     "!!python/object/apply:os.system ['true']"],
)  # fmt: skip
def test_another_form_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tenant.yaml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=r"tenant\.yaml"):
        read_tenant_file(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tenant_file(tmp_path)
