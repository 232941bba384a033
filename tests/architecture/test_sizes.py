"""Modules and functions stay small enough to read in one go."""

from __future__ import annotations

import ast

from tests.architecture.tree import Function, modules

MODULE_LINES = 400
FUNCTION_LINES = 40
TEST_MODULE_LINES = 500  # a test module mirrors its module, and is read one test at a time

# Longer ones stand here, each with its reason.
LONG_MODULES: dict[str, str] = {
    "kryonix_backup/errors.py": "one tree of errors, each a few lines, read as a table",
}
LONG_FUNCTIONS: dict[str, str] = {}


def _lines(function: Function) -> int:
    """Lines of the body; what the docstring says does not make a function long."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    body = function.body[1:] if documented else function.body
    assert function.end_lineno is not None
    return function.end_lineno - body[0].lineno + 1 if body else 0


def _gate(path: str) -> int:
    return TEST_MODULE_LINES if path.startswith("tests/") else MODULE_LINES


def test_a_module_stays_within_its_gate() -> None:
    long = {
        module.path
        for module in (*modules(), *modules("tests"))
        if len(module.text.splitlines()) > _gate(module.path)
    }

    assert long == set(LONG_MODULES)


def test_a_function_stays_within_its_gate() -> None:
    long = {
        f"{module.path}:{name}"
        for module in modules()
        for name, function in module.functions()
        if _lines(function) > FUNCTION_LINES
    }

    assert long == set(LONG_FUNCTIONS)
