"""Settings are checked where they come in, and hold no secret that shows."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.errors import ConfigError, InvalidName, SecretMissing, UsageError
from kryonix_backup.model import TenantId
from kryonix_backup.settings import (
    RegionSettings,
    RootKey,
    Secret,
    TenantSettings,
    home_directory,
)

ACME = TenantId("acme-one")
PLAIN: dict[str, Any] = {
    "id": "acme-one",
    "tier": "enterprise",
    "residency": ["BR"],
    "limits": {"cores": 1, "bandwidth": "100 Mbit/s"},
    "keys": {"store": "pkcs11:///softhsm.so?token=t", "second": None, "data_days": 7,
             "master_days": 90, "fips": False},
    "transfers": [{"jurisdiction": "US", "mechanism": "contract of 2026"}],
    "isolation": {"system_user": True},
    "regions": [{"name": "primary", "url": "file:///backup"},
                {"name": "archive", "url": "s3://acme", "jurisdiction": "EU",
                 "private_endpoint": "https://10.0.0.5"}],
    "sources": [{"name": "documents", "url": "files:///srv", "include": [], "exclude": ["*.tmp"],
                 "one_file_system": True, "compression": "adaptive"}],
}  # fmt: skip


def test_a_secret_neither_prints_nor_pickles() -> None:
    secret = Secret("correct horse")

    assert "horse" not in f"{secret} {secret!r} {RootKey(passphrase=secret)}"
    assert "horse" not in repr(RegionSettings("primary", "s3://b", "id", secret))  # type: ignore[arg-type]
    assert secret.reveal() == b"correct horse"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


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
