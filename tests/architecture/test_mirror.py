"""The tests mirror the tree: whoever changes a module knows where its tests are."""

from __future__ import annotations

import ast

from tests.architecture.tree import ROOT, Module, modules

# A module without a test module of its own, and where its tests are or why it needs none.
TESTED_ELSEWHERE: dict[str, str] = {
    "kryonix_backup/errors.py": "tests/architecture/test_errors.py holds every error to account",
}


def _has_logic(module: Module) -> bool:
    """Whether there is anything to run: more than names, ports and plain values."""
    return any(
        not isinstance(statement, ast.Pass)
        for _, function in module.functions()
        for statement in function.body
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
    )


def _test_of(path: str) -> str:
    folder, _, name = path.removeprefix("kryonix_backup/").rpartition("/")
    return f"tests/{folder}/test_{name}" if folder else f"tests/test_{name}"


def test_every_module_of_the_engine_has_its_tests() -> None:
    without = {
        module.path
        for module in modules("kryonix_backup")
        if not module.path.endswith("__init__.py")
        and _has_logic(module)
        and not (ROOT / _test_of(module.path)).exists()
    }

    assert without == set(TESTED_ELSEWHERE)


def test_modules_are_named_for_what_they_hold() -> None:
    vague = {"utils", "util", "helpers", "common", "base", "manager", "misc"}

    assert not [module.path for module in modules() if module.path[:-3].split("/")[-1] in vague]
