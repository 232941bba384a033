"""What is committed works on any machine, and comes from locked packages only."""

from __future__ import annotations

import json
import re

import pytest

from tests.architecture.tree import ROOT, tracked

LOCKS = sorted(path.name for path in ROOT.glob("requirements*.txt"))

# Written in two halves, so that this file does not find itself.
_ELSEWHERE = re.compile(
    "|".join(
        (
            r"pypi\." + "org",
            r"pythonhosted\." + "org",
            r"registry\.npm" + r"js\.",
            r"(deb|security)\.debian\." + "org",
            r"index-" + "url",
            r"(?<![\w./])/" + r"(work|farm|root|opt)/\w",
        )
    )
)
_MEANT = {
    "script/lock": "the option that keeps the address out of the lock",
}


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    found = []
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # pictures and golden repositories
        if name not in _MEANT and (match := _ELSEWHERE.search(text)):
            found.append(f"{name}: {match[0]}")

    assert not found


def test_no_file_was_left_half_merged() -> None:
    marks = re.compile(r"^(<{7}|>{7}|\|{7}) ", re.M)

    for path in tracked():
        try:
            assert not marks.search(path.read_text()), path
        except UnicodeDecodeError:
            continue  # pictures and golden repositories


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_every_package_by_hash(lock: str) -> None:
    lines = [line for line in (ROOT / lock).read_text().splitlines() if line[:1].isalpha()]

    assert lines
    for line in lines:
        assert re.match(r"[\w.-]+==[\w.!+]+( ; .+)? \\$", line), line
    packages = re.split(r"^(?=\w)", (ROOT / lock).read_text(), flags=re.M)
    assert not [
        package for package in packages if package[:1].isalpha() and "sha256:" not in package
    ]


def test_what_npm_installs_is_pinned_by_hash() -> None:
    lock = json.loads((ROOT / "tests/services/timescaledb/package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}

    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name


def test_the_locks_agree() -> None:
    def pins(lock: str) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==([\w.!+]+)", (ROOT / lock).read_text(), re.M))

    base, dev = pins("requirements.txt"), pins("requirements-dev.txt")

    assert base.items() <= dev.items()
