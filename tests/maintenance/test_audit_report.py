"""What a verification of the audit chain says."""

from __future__ import annotations

from kryonix_backup.maintenance.audit_report import MISSING, Finding


def test_a_finding_says_where_it_is() -> None:
    assert str(Finding(MISSING, 3, 3, "gone")) == "record 3 missing: gone"
    assert str(Finding(MISSING, 3, 5, "gone")) == "records 3 to 5 missing: gone"
    assert "audit/x" in str(Finding.stray("audit/x"))
