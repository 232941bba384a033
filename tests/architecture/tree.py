"""The project's own files, as the architecture tests look at them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PLANES = ("kryonix_backup", "flows", "tasks", "blocks", "deployments", "benchmarks")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """One Python file: its path from the root of the project, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Every function and method with its dotted name, nested ones too."""
        yield from _functions("", self.tree)


def _functions(prefix: str, node: ast.AST) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield f"{prefix}{child.name}", child
        inner = f"{prefix}{child.name}." if isinstance(child, Function | ast.ClassDef) else prefix
        yield from _functions(inner, child)


def _module(path: Path) -> Module:
    text = path.read_text()
    return Module(path.relative_to(ROOT).as_posix(), text, ast.parse(text))


@cache
def modules(*folders: str) -> list[Module]:
    """Every module of those folders, or of the product and its benchmarks."""
    return [
        _module(path)
        for folder in folders or PLANES
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]


@cache
def tracked() -> list[Path]:
    """Every file that is committed or about to be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    paths = [ROOT / name.decode() for name in names.split(b"\0") if name]
    return [path for path in paths if path.is_file()]
