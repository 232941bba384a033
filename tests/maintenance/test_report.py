"""What a verification found can be said as JSON."""

from __future__ import annotations

import json

from kryonix_backup.maintenance.report import Damage, Level, VerifiedLog, VerifyReport
from kryonix_backup.model import ChainId, SourceName
from kryonix_backup.repository.restorable import Gap, Range, Restorable
from kryonix_backup.testing.clock import NOON
from kryonix_backup.testing.repositories import ACME

CHAIN = ChainId("20261123t120000z-0123456789abcdef")


def _report(*damage: Damage) -> VerifyReport:
    moments = Restorable(
        SourceName("db"), (Range(CHAIN, NOON, NOON),), (Gap(NOON, None, "it is gone"),)
    )
    log = VerifiedLog(3, moments, ("the clock went back",))
    return VerifyReport(ACME, Level.DATA, 1, 2, 2, 9, 100, 0.5, 3, 3, (log,), damage)


def test_a_log_says_its_moments_and_what_is_odd_in_it() -> None:
    assert json.loads(json.dumps(_report().to_plain()))["logs"] == {
        "db": {
            "segments": 3,
            "ranges": [{"chain": CHAIN, "from": NOON.isoformat(), "to": NOON.isoformat()}],
            "gaps": [{"from": NOON.isoformat(), "to": None, "reason": "it is gone"}],
            "needs_full": True,
            "remarks": ["the clock went back"],
        }
    }


def test_any_damage_makes_it_damaged() -> None:
    damage = Damage("packs/aa/b", "is missing", ("one",), 7)

    assert _report().status == "ok"
    assert _report(damage).status == "damaged"
    assert _report(damage).to_plain()["damage"] == [
        {"object": "packs/aa/b", "reason": "is missing", "affects": ["one"], "affected": 7}
    ]
