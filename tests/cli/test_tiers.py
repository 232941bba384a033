"""The tiers are shown, and a file of them is checked."""

from __future__ import annotations

from kryonix_backup.tenancy.tiers import SHIPPED
from tests.cli.conftest import Terminal


def test_the_tiers_are_listed(kryonix: Terminal) -> None:
    said = kryonix("tiers")
    plain = kryonix("tiers", "--json").json

    assert "enterprise/high" in said.out
    assert "500 Mbit/s" in said.out
    assert [row["name"] for row in plain["tiers"]] == ["enterprise", "professional", "standard"]
    assert (plain["default"], plain["file"]) == ("standard", str(SHIPPED))


def test_a_wrong_line_is_named(kryonix: Terminal) -> None:
    file = kryonix.root / "tiers.yaml"
    file.write_text(SHIPPED.read_text().replace("rto: 2 min", "rto: soon"))

    said = kryonix("tiers", "--file", str(file))

    assert said.code == 10
    assert "line 11: rto is 'soon'" in said.err


def test_a_tenant_is_shown_with_what_it_was_promised(kryonix: Terminal) -> None:
    kryonix.add()
    said = kryonix("tenant", "show", "acme")

    assert "loses at most 30 m 00 s, restored within 10 m 00 s, available 99.9 %" in said.out
    assert "limits: 2 cores, 4 GB of memory, 500 Mbit/s, 2 backups at once" in said.out
    assert "private" not in said.out


def test_a_tenant_has_limits_below_its_tiers(kryonix: Terminal) -> None:
    words = ("tenant", "add", "acme", "--tier", "enterprise",
             "--region", f"primary={kryonix.url('one')}")  # fmt: skip

    for wrong, code in (("memory", 2), ("memory=2", 10), ("cores=5", 10), ("colour=1", 10)):
        assert kryonix(*words, "--limit", wrong).code == code
    assert kryonix(*words, "--limit", "cores=1", "--limit", "bandwidth=1 Mbit/s").code == 0
    shown = kryonix("tenant", "show", "acme", "--json").json

    assert shown["limits"] == {"cores": 1, "bandwidth": "1 Mbit/s"}
    assert shown["promised"]["limits"]["cores"] == 1
    assert "private endpoint and network" in kryonix("tenant", "show", "acme").out
