"""What must never show, and the files that it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kryonix_backup.errors import SecretMissing


class Secret:
    """A value that never prints, pickles, compares or formats; `reveal` is the one way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str | bytes) -> None:
        self._value = value.encode() if isinstance(value, str) else bytes(value)

    def reveal(self) -> bytes:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> Any:
        raise TypeError("a secret is never pickled")


def read_secret(variable: str, path: str) -> bytes:
    """The file that a variable names, whole; raises SecretMissing."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SecretMissing(f"{variable} names {path}: {error.strerror}") from error


def first_line(what: str, variable: str, path: str) -> Secret:
    """The first line of the file that a variable names; raises SecretMissing."""
    lines = read_secret(variable, path).splitlines()
    if not lines or not lines[0]:
        raise SecretMissing(f"the {what} file {path} is empty")
    return Secret(lines[0])
