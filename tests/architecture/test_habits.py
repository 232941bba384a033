"""What no linter looks for: broad excepts, exits and waiting in the engine, doubles, skips."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.architecture.tree import Module, modules

LAST_RESORT = "kryonix_backup/cli/main.py"
BROAD = {"Exception", "BaseException"}


def _names(node: ast.expr | None) -> set[str]:
    if node is None:
        return {"BaseException"}
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _passes_on(handler: ast.ExceptHandler) -> bool:
    """
    Whether the handler ends by raising again what it caught, or by giving it to another thread.

    The end of a thread has nobody to raise to; ``fail(error)`` or ``put(error)`` keeps it for
    who waits.
    """
    last = handler.body[-1]
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
        given = {part.id for part in last.value.args if isinstance(part, ast.Name)}
        verb = ast.unparse(last.value.func).rpartition(".")[2].strip("_")
        return verb in {"fail", "put", "set_exception"} and handler.name in given
    return isinstance(last, ast.Raise) and last.exc is None


def _broad(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler) or _passes_on(node):
            continue
        if _names(node.type) & BROAD:
            yield f"{module.path}:{node.lineno}"


def test_only_the_command_catches_everything() -> None:
    found = [
        place for module in modules() if module.path != LAST_RESORT for place in _broad(module)
    ]

    assert not found


def test_the_engine_neither_prints_nor_exits() -> None:
    found = [
        f"{module.path}:{node.lineno}"
        for module in modules("kryonix_backup")
        if not module.path.startswith("kryonix_backup/cli/")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "sys.exit", "exit"}
    ]

    assert not found


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    ways_out = {"skip", "skipif", "xfail", "importorskip", "skipTest"}
    found = [
        f"{module.path}:{node.lineno}"
        for module in modules("tests")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in ways_out
    ]

    assert not found


def test_doubles_are_real_classes() -> None:
    found = [
        module.path
        for module in modules("tests", "kryonix_backup")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and "mock" in ast.unparse(node)
    ]

    assert not found


def test_time_comes_in_by_the_clock() -> None:
    """Also where it is not called but handed on, which the linter does not see."""
    found = [
        f"{module.path}:{node.lineno}"
        for module in modules("kryonix_backup")
        if not module.path.startswith(("kryonix_backup/clock.py", "kryonix_backup/testing/"))
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and ast.unparse(node) in {"import time", "import random"}
    ]

    assert not found
