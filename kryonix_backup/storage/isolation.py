"""What keeps a region one tenant's alone, whatever kind it is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Isolation:
    """
    What keeps one tenant's region from everybody else.

    ``kind`` is bucket or directory, ``owner`` the user that it belongs to. ``made`` is what this
    run has made of it, and `undo` unmakes; ``proved`` is what was tried and held, and ``remarks``
    what an operator should know.
    """

    region: str
    kind: str
    address: str
    owner: str
    made: tuple[str, ...] = ()
    proved: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The isolation that `to_plain` gave."""
        lists = {name: tuple(plain[name]) for name in ("made", "proved", "remarks")}
        return cls(**{**plain, **lists})

    def to_plain(self) -> dict[str, Any]:
        """The isolation as JSON can say it; there is no secret in it."""
        return {
            "region": self.region,
            "kind": self.kind,
            "address": self.address,
            "owner": self.owner,
            "made": list(self.made),
            "proved": list(self.proved),
            "remarks": list(self.remarks),
        }
