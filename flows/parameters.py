"""
What a flow may be asked for: names and plain values.

Each carries its pattern, so that the server refuses a wrong one before anything is queued.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kryonix_backup.model import Tier

_NAME = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"

Tenant = Annotated[
    str,
    Field(pattern=_NAME, max_length=40, description="Id of the tenant, such as acme."),
]
Source = Annotated[str, Field(pattern=_NAME, max_length=40)]
Snapshot = Annotated[
    str,
    Field(
        pattern=r"^(latest|[0-9]{1,8}|[0-9]{8}t[0-9]{0,6}(z(-[0-9a-f]{0,16})?)?)$",
        max_length=40,
        description="A snapshot's id, the beginning of one, or latest.",
    ),
]
Pool = Annotated[
    Tier,
    Field(pattern=_NAME, max_length=40, description="The pool whose tenants' logs are kept."),
]
# Without a password: a run's parameters are kept, and anybody who sees the run can read them.
Target = Annotated[
    str,
    Field(
        pattern=r"^[a-z+]+:(///.*|//[^:/?#@]*@.*|//[^@]*)$",
        description="An address such as files:///dir, without a password.",
    ),
]
Restore = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{8}t[0-9]{6}z-[0-9a-f]{16}$",
        max_length=40,
        description="Id of a restore, as its first run named it.",
    ),
]
