"""Bytes inside a recipient, in the one form that is accepted."""

from __future__ import annotations

import base64


def to_text(value: bytes) -> str:
    """Base64, padded."""
    return base64.b64encode(value).decode()


def from_text(text: str) -> bytes:
    """
    What `to_text` was given; raises ValueError and TypeError.

    Base64 has spare bits at its end; none of them may be changed.
    """
    value = base64.b64decode(text, validate=True)
    if to_text(value) != text:
        raise ValueError("not the base64 of anything")
    return value
