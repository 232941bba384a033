"""A tenant is added from words and files, and forgotten without losing a byte."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kryonix_backup.cli.tenant_file import read_tenant_file
from kryonix_backup.settings import TenantSettings
from kryonix_backup.tenancy.registry import Registry
from tests.cli.conftest import Terminal


def test_a_tenant_is_what_its_options_say(kryonix: Terminal) -> None:
    said = kryonix(
        "tenant", "add", "acme", "--tier", "enterprise",
        "--region", f"primary={kryonix.url('one')}", "--region", f"secondary={kryonix.url('two')}",
        "--source", f"files={kryonix.source('files')}", "--exclude", "files=*.tmp",
        "--exclude", "files=cache/", "--include", "files=*.txt", "--one-file-system", "files",
        "--residency", "br", "--jurisdiction", "primary=BR", "--jurisdiction", "secondary=br",
        "--json",
    )  # fmt: skip

    assert said.code == 0
    assert said.json["repository"]
    shown = kryonix("tenant", "show", "acme", "--json").json
    assert said.json == {
        **shown,
        "repository": said.json["repository"],
        "onboarding": said.json["onboarding"],
        "isolated": said.json["isolated"],
    }
    assert [each["region"] for each in said.json["isolated"]] == ["primary", "secondary"]
    assert [region["jurisdiction"] for region in shown["regions"]] == ["BR", "BR"]
    assert shown["tier"] == "enterprise"
    assert [region["name"] for region in shown["regions"]] == ["primary", "secondary"]
    (source,) = shown["sources"]
    assert (source["include"], source["exclude"]) == (["*.txt"], ["*.tmp", "cache/"])
    assert source["one_file_system"] is True
    assert shown["residency"] == ["BR"]


def test_people_see_the_same(kryonix: Terminal) -> None:
    assert "kryonix backup acme" in kryonix.add().out
    assert "tenant acme, tier standard" in kryonix("tenant", "show", "acme").out
    assert "acme" in kryonix("tenant", "list").out


def test_a_network_of_its_own_is_shown_and_for_tiers_that_have_one(
    kryonix: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    file = kryonix.root / "tenant.yaml"
    file.write_text(
        "regions:\n- name: primary\n  url: s3://acme?endpoint=http://127.0.0.1:1&timeout=0.2\n"
        "  private_endpoint: http://127.0.0.1:2\n  proxy: http://127.0.0.1:3\n"
        "  ca_bundle: /nowhere/bank.pem\n"
    )
    words = ("tenant", "add", "acme", "--file", str(file))

    refused = kryonix(*words)

    assert refused.code == 10
    assert "private_endpoint, proxy, ca_bundle" in refused.err
    assert "tier standard has none" in refused.err
    assert "/nowhere/bank.pem: No such file" in kryonix(*words, "--tier", "enterprise").err
    settings = TenantSettings.from_plain(
        {**read_tenant_file(file), "id": "acme", "tier": "enterprise", "sources": []}
    )
    Registry.at(os.environ).add(settings)
    shown = kryonix("tenant", "show", "acme").out
    assert "reached at http://127.0.0.1:2" in shown
    assert "by way of http://127.0.0.1:3" in shown
    assert "with certificates of /nowhere/bank.pem" in shown


def test_there_may_be_no_tenant(kryonix: Terminal) -> None:
    assert "no tenants yet" in kryonix("tenant", "list").out
    assert kryonix("tenant", "show", "acme").code == 12
    assert kryonix("tenant", "remove", "acme").code == 12


def test_a_file_and_options_add_up(kryonix: Terminal) -> None:
    file = kryonix.root / "tenant.yaml"
    file.write_text(
        f"tier: enterprise\nregions:\n- name: primary\n  url: {kryonix.url('one')}\n"
        f"sources:\n- name: files\n  url: {kryonix.source('files')}\n  exclude: ['*.tmp']\n"
    )
    said = kryonix(
        "tenant", "add", "acme", "--file", str(file), "--exclude", "files=*.bak",
        "--region", f"secondary={kryonix.url('two')}", "--json",
    )  # fmt: skip

    assert said.json["tier"] == "enterprise"
    assert said.json["sources"][0]["exclude"] == ["*.tmp", "*.bak"]
    assert [region["name"] for region in said.json["regions"]] == ["primary", "secondary"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--source", "files=files:///srv"), 10),  # no primary region
        (("--region", "primary=file:///p", "--region", "primary=file:///q"), 10),
        (("--region", "primary=gopher://x"), 14),
        (("--region", "primary=file:///p", "--exclude", "nope=*.tmp"), 2),
        (("--region", "primary=file:///p", "--one-file-system", "nope"), 2),
        (("--region", "primary=file:///p", "--source", "Files=files:///srv"), 11),
        (("--region", "primary=file:///p", "--source", "files=gopher://x"), 14),
        (("--region", "primary"), 2),
        (("--region", "primary=file:///p", "--tier", "gold"), 10),
    ],
)
def test_what_is_wrong_registers_nothing(
    kryonix: Terminal, words: tuple[str, ...], code: int
) -> None:
    assert kryonix("tenant", "add", "acme", *words).code == code
    assert kryonix("tenant", "list", "--json").json == {"tenants": []}
    assert not Path("/p").exists()


def test_a_file_about_another_tenant_is_refused(kryonix: Terminal) -> None:
    file = kryonix.root / "tenant.yaml"
    file.write_text("id: rival\n")

    assert kryonix("tenant", "add", "acme", "--file", str(file)).code == 2


def test_a_tenant_is_added_once_and_shares_no_region(kryonix: Terminal) -> None:
    assert kryonix.add().code == 0
    assert kryonix.add().code == 13
    region = f"primary={kryonix.url('acme-primary')}"
    assert kryonix("tenant", "add", "rival", "--region", region).code == 10


def test_a_source_that_is_not_there_is_a_warning_with_what_comes_first(kryonix: Terminal) -> None:
    region, source = f"primary={kryonix.url('one')}", f"files={kryonix.source('nowhere')}"
    said = kryonix("tenant", "add", "acme", "--region", region, "--source", source)

    assert said.code == 0
    assert "  warning: source files: the directory " in said.out
    assert said.out.endswith(
        "next: kryonix source check acme files, which says how to mend it\n"
        "then: kryonix backup acme\n"
    )


def test_forgetting_says_what_stays(backed_up: Terminal) -> None:
    said = backed_up("tenant", "remove", "acme")

    assert "its backups stay" in said.out
    assert "'kryonix deploy acme --remove'" in said.out
    assert backed_up.url("acme-primary") in said.out
    assert backed_up("tenant", "list", "--json").json == {"tenants": []}
    assert backed_up.add().code == 0
    assert len(backed_up("snapshots", "acme", "--json").json["snapshots"]) == 1
    assert backed_up("tenant", "remove", "acme", "--json").json["removed"] is True
