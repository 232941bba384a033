"""
What a flow may be asked for: names and plain values.

Each carries its pattern, so that the server refuses a wrong one before anything is queued. What it
is for stands in the docstring of the flow: Prefect's form shows that, and no description from here.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kryonix_backup.model import Tier

_NAME = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"

Tenant = Annotated[str, Field(pattern=_NAME, max_length=40)]
Source = Annotated[str, Field(pattern=_NAME, max_length=40)]
Snapshot = Annotated[
    str,
    Field(
        pattern=r"^(latest|[0-9]{1,8}|[0-9]{8}t[0-9]{0,6}(z(-[0-9a-f]{0,16})?)?)$",
        max_length=40,
    ),
]
Pool = Annotated[
    Tier,
    Field(pattern=_NAME, max_length=40),
]
# Without a password: a run's parameters are kept, and anybody who sees the run can read them.
Target = Annotated[
    str,
    Field(
        pattern=r"^[a-z+]+:(///.*|//[^:/?#@]*@.*|//[^@]*)$",
    ),
]
Restore = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{8}t[0-9]{6}z-[0-9a-f]{16}$",
        max_length=40,
    ),
]
