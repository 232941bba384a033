"""Settings are checked where they come in, and hold no secret that shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.errors import ConfigError, InvalidName, InvalidUrl, SecretMissing, UsageError
from kryonix_backup.model import TenantId
from kryonix_backup.settings import RegionSettings, RootKey, TenantSettings, home_directory

ACME = TenantId("acme-one")
PLAIN: dict[str, Any] = {
    "id": "acme-one",
    "tier": "enterprise",
    "residency": ["BR"],
    "limits": {"cores": 1, "bandwidth": "100 Mbit/s"},
    "keys": {"store": "pkcs11:///softhsm.so?token=t", "second": None, "data_days": 7,
             "master_days": 90, "archive_days": None, "fips": False},
    "transfers": [{"jurisdiction": "US", "mechanism": "contract of 2026"}],
    "isolation": {"system_user": True},
    "regions": [{"name": "primary", "url": "file:///backup"},
                {"name": "archive", "url": "s3://acme", "jurisdiction": "EU",
                 "private_endpoint": "https://10.0.0.5", "proxy": "http://10.0.0.9:3128",
                 "ca_bundle": "/etc/kryonix/bank.pem"}],
    "sources": [{"name": "documents", "url": "files:///srv", "include": [], "exclude": ["*.tmp"],
                 "one_file_system": True, "compression": "adaptive"}],
}  # fmt: skip


def test_settings_come_back_out_of_json() -> None:
    settings = TenantSettings.from_plain(PLAIN)

    assert settings.to_plain() == PLAIN
    assert TenantSettings.from_plain(json.loads(json.dumps(settings.to_plain()))) == settings


def test_sources_and_regions_are_found_by_name() -> None:
    settings = TenantSettings.from_plain(PLAIN)

    assert settings.primary.url == "file:///backup"
    assert settings.region("archive").url == "s3://acme"
    assert settings.source("documents").exclude == ("*.tmp",)
    with pytest.raises(ConfigError, match=r"no region 'moon' \(it has: primary, archive\)"):
        settings.region("moon")
    with pytest.raises(ConfigError, match=r"no source 'moon' \(it has: documents\)"):
        settings.source("moon")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"regions": []}, "needs a region named 'primary'"),
        ({"regions": [{"name": "primary"}]}, "lack 'url'"),
        ({"regions": [PLAIN["regions"][0]] * 2}, "region 'primary' is named twice"),
        ({"sources": [PLAIN["sources"][0]] * 2}, "source 'documents' is named twice"),
        ({"sources": [{**PLAIN["sources"][0], "colour": 1}]}, "no setting 'colour'"),
        ({"sources": ["files:///srv"]}, "'f'|wrong form|no setting"),
        ({"regions": 7}, "wrong form"),
        ({"tier": 7}, "wrong form"),
        ({"limits": {"colour": 1}}, "no limit 'colour'"),
        ({"limits": [1]}, "not a mapping"),
        ({"keys": {"colour": 1}}, "no setting 'colour'"),
        ({"keys": {"data_days": 0}}, "data_days is 0, not a number of days"),
        ({"keys": {"master_days": 3651}}, "master_days is 3651"),
        ({"keys": {"archive_days": "30"}}, "archive_days is '30'"),
        ({"keys": {"data_days": True}}, "data_days is True"),
        ({"keys": {"fips": "yes"}}, "fips is 'yes'"),
        ({"keys": {"store": 7}}, "store is no address"),
        ({"keys": {"second": ["kms:"]}}, "second is no address"),
        ({"keys": 7}, "wrong form"),
        ({"keys": [1]}, "wrong form|no setting"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        TenantSettings.from_plain({**PLAIN, **change})


@pytest.mark.parametrize(
    "change",
    [{"id": "../x"}, {"tier": "../x"}, {"regions": [{"name": "PRIMARY", "url": "x"}]},
     {"sources": [{"name": "a b", "url": "x"}]}],
)  # fmt: skip
def test_a_name_that_is_not_allowed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidName):
        TenantSettings.from_plain({**PLAIN, **change})


def test_a_passphrase_comes_from_the_environment_or_the_first_line_of_a_file(
    tmp_path: Path,
) -> None:
    file = tmp_path / "passphrase"
    file.write_bytes(b"from a file\nnot this\n")

    by_value = RootKey.from_environment({"KRYONIX_PASSPHRASE": "by value"}, ACME)
    by_file = RootKey.from_environment({"KRYONIX_PASSPHRASE_FILE": str(file)}, ACME)

    assert by_value.passphrase is not None
    assert by_value.passphrase.reveal() == b"by value"
    assert by_file.passphrase is not None
    assert by_file.passphrase.reveal() == b"from a file"


def test_a_key_file_is_taken_whole(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(bytes(range(40)))

    root = RootKey.from_environment({"KRYONIX_KEY_FILE": str(file)}, ACME)

    assert root.key_file is not None
    assert root.key_file.reveal() == bytes(range(40))


def test_a_tenants_own_variable_comes_before_the_common_one() -> None:
    env = {"KRYONIX_PASSPHRASE": "common", "KRYONIX_ACME_ONE_PASSPHRASE": "own"}

    root = RootKey.from_environment(env, ACME)

    assert root.passphrase is not None
    assert root.passphrase.reveal() == b"own"


@pytest.mark.parametrize(
    ("content", "variable", "said"),
    [
        (None, "KRYONIX_PASSPHRASE_FILE", "No such file"),
        (b"", "KRYONIX_PASSPHRASE_FILE", "is empty"),
        (b"\nsecond line", "KRYONIX_PASSPHRASE_FILE", "is empty"),
        (b"x" * 31, "KRYONIX_KEY_FILE", "fewer than 32 bytes"),
    ],
)
def test_a_file_without_a_secret_is_named(
    tmp_path: Path, content: bytes | None, variable: str, said: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SecretMissing, match=said) as raised:
        RootKey.from_environment({variable: str(file)}, ACME)

    assert str(file) in str(raised.value)


def test_two_secrets_are_one_too_many_and_none_is_too_few() -> None:
    both = {"KRYONIX_PASSPHRASE": "a", "KRYONIX_KEY_FILE": "b"}

    with pytest.raises(UsageError, match="both set"):
        RootKey.from_environment(both, ACME)
    with pytest.raises(SecretMissing, match="acme-one"):
        RootKey.from_environment({"KRYONIX_PASSPHRASE": ""}, ACME)


def test_the_home_is_the_users_unless_it_is_set(tmp_path: Path) -> None:
    assert home_directory({"KRYONIX_HOME": str(tmp_path)}) == tmp_path
    assert home_directory({}) == Path.home() / ".local/share/kryonix"


HSM = "pkcs11:///usr/lib/p11.so?token=a"
KMS = "kms://?region=us-east-1"


def test_a_key_store_is_a_root_with_a_pin(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("from a file\nnot this")
    by_value = {"KRYONIX_KEY_STORE": HSM, "KRYONIX_PIN": "by value"}
    by_file = {"KRYONIX_ACME_ONE_KEY_STORE": HSM, "KRYONIX_PIN_FILE": str(tmp_path / "pin")}

    for env, pin in ((by_value, b"by value"), (by_file, b"from a file")):
        root = RootKey.from_environment(env, ACME)
        assert root.store is not None
        assert (root.passphrase, root.key_file, root.store.url) == (None, None, HSM)
        assert root.store.pin is not None
        assert root.store.pin.reveal() == pin
        assert pin.decode() not in repr(root)


def test_a_store_of_the_tenants_settings_is_the_root_whatever_else_is_set() -> None:
    env = {
        "KRYONIX_ACME_ONE_PASSPHRASE": "old",
        "KRYONIX_PASSPHRASE": "older",
        "KRYONIX_PIN": "common",
        "KRYONIX_ACME_ONE_PIN": "own",
    }

    root = RootKey.from_environment(env, ACME, HSM)

    assert root.store is not None
    assert root.passphrase is None
    assert root.store.pin is not None
    assert root.store.pin.reveal() == b"own"


@pytest.mark.parametrize("prefix", ["KRYONIX_ACME_ONE_KMS_", "KRYONIX_KMS_", "AWS_"])
def test_a_kms_has_credentials_of_its_own_before_those_of_s3(prefix: str) -> None:
    order = ["KRYONIX_ACME_ONE_KMS_", "KRYONIX_KMS_", "AWS_"]
    env: dict[str, str] = {}
    for each in order[order.index(prefix) :]:
        env |= {f"{each}ACCESS_KEY_ID": f"{each}id", f"{each}SECRET_ACCESS_KEY": f"{each}secret",
                f"{each}SESSION_TOKEN": f"{each}session"}  # fmt: skip

    store = RootKey.from_environment(env, ACME, KMS).store

    assert store is not None
    assert store.access_key_id == f"{prefix}id"
    assert store.secret_access_key is not None
    assert store.session_token is not None
    assert store.secret_access_key.reveal() == f"{prefix}secret".encode()
    assert store.session_token.reveal() == f"{prefix}session".encode()
    assert "secret" not in repr(store).replace("secret_access_key", "")


@pytest.mark.parametrize(
    ("env", "url", "said"),
    [
        ({}, HSM, "no PIN"),
        ({"KRYONIX_PIN_FILE": "/nowhere"}, HSM, "No such file"),
        ({}, KMS, "no credentials"),
        ({"AWS_ACCESS_KEY_ID": "a"}, KMS, "AWS_SECRET_ACCESS_KEY is not set"),
        ({"KRYONIX_KMS_SECRET_ACCESS_KEY": "a"}, KMS, "KRYONIX_KMS_ACCESS_KEY_ID is not set"),
    ],
)
def test_what_lets_us_in_is_missed(env: dict[str, str], url: str, said: str) -> None:
    with pytest.raises(SecretMissing, match=said) as raised:
        RootKey.from_environment(env, ACME, url)
    assert "acme-one" in str(raised.value) or "/nowhere" in str(raised.value)


@pytest.mark.parametrize(
    "env",
    [
        {"KRYONIX_KEY_STORE": HSM, "KRYONIX_PASSPHRASE": "a", "KRYONIX_PIN": "1"},
        {"KRYONIX_KEY_STORE": HSM, "KRYONIX_PIN": "1", "KRYONIX_PIN_FILE": "/pin"},
    ],
)
def test_two_roots_or_pins_are_one_too_many(env: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="both set"):
        RootKey.from_environment(env, ACME)


@pytest.mark.parametrize("name", ["proxy", "private_endpoint"])
def test_a_login_in_an_address_is_refused_before_it_is_kept(name: str) -> None:
    row = {"name": "primary", "url": "s3://acme", name: "http://backup:hunter2@10.0.0.9:3128"}

    with pytest.raises(InvalidUrl, match="holds a login") as raised:
        RegionSettings.from_plain(row)
    assert "hunter2" not in raised.value.message + raised.value.hint


def test_what_a_region_says_of_its_network_is_under_the_names_of_the_settings() -> None:
    archive = TenantSettings.from_plain(PLAIN).region("archive")

    assert list(archive.network) == ["private_endpoint", "proxy", "ca_bundle"]
    assert RegionSettings.from_plain({"name": "eu-2", "url": "s3://acme"}).network == {}
    assert RegionSettings.from_plain({"name": "eu-2", "url": "s3://a"}).variables == "KRYONIX_EU_2_"


def test_the_way_to_a_kms_comes_from_the_environment(tmp_path: Path) -> None:
    env = {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "KRYONIX_KMS_PROXY": "http://10.0.0.9:3128",
        "KRYONIX_ACME_ONE_KMS_PROXY": "http://10.0.0.8:3128",
        "KRYONIX_ACME_ONE_KMS_PROXY_USER": "backup",
        "KRYONIX_ACME_ONE_KMS_PROXY_PASSWORD": "hunter2",
    }

    store = RootKey.from_environment(env, ACME, "kms://?region=sa-east-1").store
    other = RootKey.from_environment(env, TenantId("beta"), "kms://?region=sa-east-1").store

    assert store is not None
    assert other is not None
    assert store.network is not None
    assert other.network is not None
    assert store.network.proxies()["https"] == "http://backup:hunter2@10.0.0.8:3128"
    assert other.network.proxies()["https"] == "http://10.0.0.9:3128"
    assert "hunter2" not in repr(store)
    env["KRYONIX_KMS_CA_BUNDLE"] = str(tmp_path / "none.pem")
    with pytest.raises(ConfigError, match=r"KRYONIX_KMS_CA_BUNDLE names .*none\.pem"):
        RootKey.from_environment(env, TenantId("beta"), "kms://?region=sa-east-1")


@pytest.mark.parametrize("name", ["kms", "primary-admin", "acme-kms"])
def test_no_region_has_the_variables_of_something_else(name: str) -> None:
    with pytest.raises(InvalidName, match="-admin or kms"):
        RegionSettings.from_plain({"name": name, "url": "s3://acme"})
