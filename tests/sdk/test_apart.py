"""Backups are in no tree that is backed up, and nothing is restored among them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kryonix_backup.errors import ConfigError
from kryonix_backup.sdk.apart import check_apart, check_targets_apart
from tests.sdk.conftest import Machine


@pytest.mark.parametrize("place", ["primary", "primary/deep/er", "x/../primary", "alias/new"])
def test_no_restore_is_written_among_the_backups(machine: Machine, place: str) -> None:
    (machine.root / "primary").mkdir()
    (machine.root / "alias").symlink_to("primary")

    with pytest.raises(ConfigError, match="where the backups are") as refused:
        check_targets_apart(machine.settings, {"files": f"files://{machine.root / place}"})
    assert "--to files=files:///DIR" in refused.value.hint


@pytest.mark.parametrize(
    "url", ["files:///", "files://{root}/primary2", "postgresql://u@h/primary"]
)
def test_a_restore_beside_or_above_them_is(machine: Machine, url: str) -> None:
    check_targets_apart(machine.settings, {"files": url.format(root=machine.root)})


def test_a_repository_is_in_no_tree_that_is_backed_up(machine: Machine) -> None:
    (source,) = machine.settings.sources
    check_apart(source, machine.region("primary"))

    with pytest.raises(ConfigError, match="is inside source"):
        check_apart(source, machine.region("files/deep/repository"))
    check_apart(replace(source, exclude=("/deep/",)), machine.region("files/deep/repository"))
