"""What must never show."""

from __future__ import annotations

from typing import Any


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
