"""Each shell gets its script."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Terminal


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(kryonix: Terminal, shell: str) -> None:
    said = kryonix("completion", shell, "--json")

    assert said.code == 0
    assert "_KRYONIX_COMPLETE" in said.json["script"]
    assert said.json["script"].rstrip() == kryonix("completion", shell).out.rstrip()


def test_another_shell_is_refused(kryonix: Terminal) -> None:
    assert kryonix("completion", "cmd").code == 2
