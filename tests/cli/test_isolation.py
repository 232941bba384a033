"""People and programs are told what keeps a region apart."""

from __future__ import annotations

from kryonix_backup.cli.isolation import isolation_lines, isolation_plain
from kryonix_backup.storage.isolation import Isolation
from tests.cli.conftest import Terminal


def test_what_was_made_and_proved_is_told() -> None:
    done = [Isolation("primary", "bucket", "s3://a", "kryonix.acme.1", ("key",), ("p",), ("r",))]

    assert list(isolation_lines(done)) == [
        "  region primary is kryonix.acme.1's alone (made: key)",
        "    proved: p",
        "    note: r",
    ]
    assert isolation_plain(done)["isolated"][0]["owner"] == "kryonix.acme.1"
    assert "no operator's credentials" in "".join(isolation_lines([]))


def test_a_registered_tenant_is_isolated_again(kryonix: Terminal) -> None:
    kryonix.add()
    (kryonix.root / "acme-primary").chmod(0o755)

    said = kryonix("tenant", "isolate", "acme", "--json")
    people = kryonix("tenant", "isolate", "acme", "--region", "primary")

    assert said.json["tenant"] == "acme"
    assert [each["made"] for each in said.json["isolated"]] == [["mode"]]
    assert "proved: its mode is 0700" in people.out
    assert kryonix("tenant", "isolate", "acme", "--rotate").code == 10
    assert kryonix("tenant", "isolate", "acme", "--region", "moon").code == 10


def test_a_jurisdiction_belongs_to_a_region(kryonix: Terminal) -> None:
    words = ("tenant", "add", "acme", "--region", f"primary={kryonix.url('one')}")

    stray = kryonix(*words, "--jurisdiction", "moon=BR")
    outside = kryonix(*words, "--jurisdiction", "primary=US", "--residency", "BR", "--json")

    assert (stray.code, outside.code) == (2, 19)
    assert "--jurisdiction names region 'moon'" in stray.err
    assert outside.json["error"]["type"] == "ResidencyViolation"
    other = ("--region", f"primary={kryonix.url('one')}", "--jurisdiction", "moon=BR")
    assert kryonix("snapshots", "acme", *other).code == 2
