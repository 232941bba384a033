"""Blocks read back from the server, with the type that they were saved with."""

from __future__ import annotations

from typing import TypeVar

from prefect.blocks.core import Block

B = TypeVar("B", bound=Block)


def saved(block_type: type[B], name: str) -> B:
    """The block saved under that name; raises ValueError where there is none."""
    found = block_type.load(name)
    assert isinstance(found, block_type)  # a coroutine only inside an event loop
    return found
