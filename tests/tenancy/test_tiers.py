from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.errors import ConfigError
from kryonix_backup.limits import LimitSettings
from kryonix_backup.model import RegionName, TenantId, Tier
from kryonix_backup.settings import RegionSettings, TenantSettings
from kryonix_backup.tenancy.tiers import SHIPPED, Keep, load_tiers, read_tiers

TEXT = SHIPPED.read_text()
REGION = RegionSettings(RegionName("primary"), "file:///backup")
ACME = TenantSettings(TenantId("acme"), Tier("standard"), (REGION,), ())


def test_the_shipped_tiers_are_those_that_were_promised() -> None:
    tiers = load_tiers({})
    enterprise, professional, standard = tiers

    assert tiers.names == ("enterprise", "professional", "standard")
    assert tiers.default == "standard"
    assert [(each.rpo_s, each.rto_s) for each in tiers] == [(300, 120), (900, 300), (1800, 600)]
    assert [each.availability_percent for each in tiers] == [99.999, 99.9, 99.9]
    assert [each.queue for each in tiers] == ["high", "normal", "normal"]
    assert [each.private_network for each in tiers] == [True, False, False]
    assert [each.archive_years for each in tiers] == [7, 7, 0]
    assert [each.limits.workers for each in tiers] == [4, 2, 2]
    assert enterprise.limits.to_plain() == {
        "cores": 4, "memory_bytes": 8 * 10**9, "bandwidth_bits_s": 10**9, "workers": 4,
    }  # fmt: skip
    assert professional.limits == standard.limits
    assert standard.limits.bandwidth_bits_s == 500 * 10**6
    assert [each.keep for each in tiers] == [
        Keep(60, 24, 24, 7), Keep(30, 12, 12, 2), Keep(7, 4, 3, 0),
    ]  # fmt: skip
    assert {tuple(each.to_plain()["key_rotation"].values()) for each in tiers} == {(90, 30, 365)}


def test_another_file_may_have_other_tiers(tmp_path: Path) -> None:
    block = TEXT[TEXT.index("  standard:") :].replace("standard", "gold").replace("30 min", "2 h")
    file = tmp_path / "tiers.yaml"
    file.write_text(TEXT + "\n" + block)

    tiers = load_tiers({"KRYONIX_TIERS": str(file)})

    assert tiers.names[-1] == "gold"
    assert tiers.of("gold").rpo_s == 7200
    assert "gold" in tiers
    with pytest.raises(ConfigError, match=r"no tier 'silver'; the tiers are enterprise, .*, gold"):
        tiers.of("silver")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rpo: 5 min", "rpo: 5", "line 10: rpo is '5', not a number of s, min, h"),
        ("rpo: 5 min", "rpo: 1 min", "line 10: an rpo of 60 s is below 120 s"),
        ("rpo: 5 min", "rpo: [5]", "line 10: rpo is not a single value"),
        ("rpo: 5 min", "rpo: 5 min\n    rpo: 5 min", "line 11: 'rpo' stands twice"),
        ("rpo: 5 min", "rpo: 5 min\n    colour: red", "line 11: .* no setting 'colour'"),
        ("    rpo: 5 min\n", "", "line 9: tier enterprise lacks 'rpo'"),
        ("rto: 2 min", "rto: 0 min", "line 11: rto is '0 min'"),
        ("99.999 %", "101 %", "line 12: availability"),
        ("99.999 %", "99.999", "line 12: availability"),
        ("queue: high", "queue: first", "line 13: the queue is 'first'"),
        ("private_network: yes", "private_network: maybe", "line 14: .* neither yes nor no"),
        ("memory: 8 GB", "memory: 8", "line 15: memory is '8'"),
        ("memory: 8 GB", "memory: 8 MB", "line 15: memory .* with less than"),
        ("cores: 4", "cores: 0", "line 15: cores"),
        ("1 Gbit/s", "1 GB/s", "line 15: bandwidth"),
        ("daily: 60", "daily: -1", "line 16: daily"),
        ("{daily: 60, weekly: 24, monthly: 24, yearly: 7}",
         "{daily: 0, weekly: 0, monthly: 0, yearly: 0}", "line 16: no snapshot would be kept"),
        ("archive: 7 years", "archive: 7", "line 17: archive"),
        ("master: 90 days", "master: 90", "line 18: master"),
        ("  enterprise:", "  Enter_prise:", "line 9: tier 'Enter_prise' is not a valid name"),
        ("default: standard", "default: gold", "line 7: the default 'gold'"),
        ("default: standard\n", "", "lacks 'default'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "tiers.yaml"
    assert old in TEXT
    file.write_text(TEXT.replace(old, new, 1))

    with pytest.raises(ConfigError, match=f"^{re.escape(str(file))}.*{said}"):
        read_tiers(file)


@pytest.mark.parametrize("body", [b"", b"- a", b"a: [", b"\xff", b"default: x\ntiers: {}", b"7"])
def test_what_is_no_file_of_tiers_is_refused(tmp_path: Path, body: bytes) -> None:
    file = tmp_path / "tiers.yaml"
    file.write_bytes(body)

    with pytest.raises(ConfigError, match=r"tiers\.yaml"):
        read_tiers(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tiers(tmp_path / "none.yaml")


def test_a_limit_of_a_tenant_is_below_its_tiers() -> None:
    tiers = load_tiers({})
    slow = replace(ACME, limits=LimitSettings(bandwidth_bits_s=10**8))
    greedy = replace(ACME, limits=LimitSettings(memory_bytes=8 * 10**9))

    tiers.check(slow)
    assert tiers.limits_of(slow).bandwidth_bits_s == 10**8
    with pytest.raises(ConfigError, match="limit memory of tenant acme is above that of tier stan"):
        tiers.check(greedy)
    assert tiers.limits_of(greedy) == tiers.of("standard").limits
    with pytest.raises(ConfigError, match="no tier 'gold'"):
        tiers.check(replace(ACME, tier=Tier("gold")))


@pytest.mark.parametrize("name", ["private_endpoint", "proxy", "ca_bundle"])
def test_a_network_of_its_own_is_for_tiers_that_have_one(name: str) -> None:
    """What the tier is called decides nothing."""
    tiers = load_tiers({})
    network: dict[str, Any] = {name: "http://10.0.0.5"}
    region = RegionSettings(RegionName("primary"), "s3://acme", **network)
    wanting = replace(ACME, regions=(region,))

    tiers.check(replace(wanting, tier=Tier("enterprise")))
    with pytest.raises(ConfigError, match=rf"region primary of tenant acme .*\({name}\), and tier"):
        tiers.check(wanting)
    renamed = tuple(replace(each, private_network=not each.private_network) for each in tiers)
    turned = replace(tiers, terms=renamed)
    turned.check(wanting)
    with pytest.raises(ConfigError, match="tier enterprise has none"):
        turned.check(replace(wanting, tier=Tier("enterprise")))
