"""Addresses of proxies, whose login lets us in, and what the environment says to every program."""

from __future__ import annotations

from pathlib import Path

import pytest

from kryonix_backup.errors import ConfigError, InvalidUrl, SecretMissing, UsageError
from kryonix_backup.network import (
    Network,
    Proxy,
    check_bundle,
    is_server,
    network_named,
    proxy_at,
    proxy_of_machine,
    with_login,
)
from kryonix_backup.secret import Secret

PROXY = "http://proxy.internal:3128"
S3 = "https://s3.sa-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        (PROXY, PROXY),
        ("http://proxy.internal:3128/", PROXY),
        ("HTTP://Proxy.Internal.:3128", PROXY),
        ("http://proxy.internal", "http://proxy.internal:80"),
        ("http://[fd00::9]:3128", "http://[fd00::9]:3128"),
    ],
)
def test_an_address_has_one_spelling_and_always_a_port(url: str, clean: str) -> None:
    assert proxy_at(url, "region primary") == Proxy(clean)


@pytest.mark.parametrize(
    "url",
    ["", "proxy.internal:3128", "https://10.0.0.9", "socks5://proxy.internal:1080", "http://", "http://proxy:x",
     "http://proxy.internal:3128/path", "http://proxy.internal?a=b", "http://a b",
     "http://evil.example\\.internal", "http://proxy\t.internal", "http://prox%79.internal",
     "http://pröxy.internal", "http://[fd00::9", "http://proxy.internal:3128#x"],
)  # fmt: skip
def test_what_is_no_proxy_is_refused(url: str) -> None:
    with pytest.raises(InvalidUrl, match="region primary: the address of its proxy is not like"):
        proxy_at(url, "region primary")


@pytest.mark.parametrize("login", ["backup:hunter2", "hunter2", ":hunter2", "a:hunter2@b"])
def test_a_login_in_an_address_is_refused_and_not_repeated(login: str) -> None:
    with pytest.raises(InvalidUrl) as raised:
        proxy_at(f"http://{login}@proxy.internal:3128", "region primary")

    assert "hunter2" not in raised.value.message + raised.value.hint
    assert "PROXY_PASSWORD_FILE" in raised.value.hint


def test_a_login_comes_from_the_environment_or_the_first_line_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p@ss:w/ord\nnot this\n")
    env = {"KRYONIX_A_PROXY_USER": "back up"}

    by_file = with_login(
        Proxy(PROXY), {**env, "KRYONIX_A_PROXY_PASSWORD_FILE": str(file)}, "KRYONIX_A_", "a"
    )
    by_value = with_login(
        Proxy(PROXY), {**env, "KRYONIX_A_PROXY_PASSWORD": "hush"}, "KRYONIX_A_", "a"
    )

    assert by_file.reveal() == "http://back%20up:p%40ss%3Aw%2Ford@proxy.internal:3128"
    assert by_value.reveal() == "http://back%20up:hush@proxy.internal:3128"
    assert "hush" not in repr(by_value) + repr(Network(by_value)) + Network(by_value).way
    assert with_login(Proxy(PROXY), {}, "KRYONIX_A_", "a") == Proxy(PROXY)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"KRYONIX_A_PROXY_USER": "u"}, "KRYONIX_A_PROXY_PASSWORD is not set"),
        ({"KRYONIX_A_PROXY_PASSWORD": "hunter2"}, "KRYONIX_A_PROXY_USER is not set"),
        ({"KRYONIX_A_PROXY_PASSWORD_FILE": "/nowhere"}, "PASSWORD_FILE names /nowhere: No such"),
        ({"KRYONIX_A_PROXY_PASSWORD_FILE": "/dev/null"}, "password file /dev/null is empty"),
    ],
)
def test_half_a_login_is_refused(env: dict[str, str], said: str) -> None:
    with pytest.raises(SecretMissing, match=said) as raised:
        with_login(Proxy(PROXY), env, "KRYONIX_A_", "region a")
    assert "hunter2" not in raised.value.message + raised.value.hint


def test_a_password_is_in_one_place(tmp_path: Path) -> None:
    env = {"A_PROXY_USER": "u", "A_PROXY_PASSWORD": "p", "A_PROXY_PASSWORD_FILE": "/p"}

    with pytest.raises(UsageError, match="A_PROXY_PASSWORD and A_PROXY_PASSWORD_FILE are both"):
        with_login(Proxy(PROXY), env, "A_", "a")


@pytest.mark.parametrize(("user", "word"), [("ü", "hunter2"), ("u", "hünter2"), ("a:b", "hunter2")])
def test_a_login_that_not_every_client_can_send_is_refused(user: str, word: str) -> None:
    with pytest.raises(ConfigError, match="the login of the proxy http://proxy") as raised:
        Proxy(PROXY, user, Secret(word))
    assert word not in raised.value.message


def test_no_proxy_is_a_word_too() -> None:
    assert Network().proxies() == {}
    assert Network().way == ""
    assert Network(Proxy(PROXY)).proxies() == {"http": PROXY, "https": PROXY}
    assert Network(Proxy(PROXY, "u", Secret("hush"))).way == f" by way of {PROXY}"


@pytest.mark.parametrize(
    ("env", "found"),
    [
        ({}, None),
        ({"HTTPS_PROXY": PROXY}, PROXY),
        ({"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, PROXY),
        ({"HTTP_PROXY": PROXY}, None),
        ({"ALL_PROXY": PROXY}, PROXY),
        ({"HTTPS_PROXY": "proxy.internal:3128"}, PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "localhost, .amazonaws.com"}, None),
        ({"HTTPS_PROXY": PROXY, "no_proxy": "sa-east-1.amazonaws.com"}, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "east-1.amazonaws.com"}, PROXY),
        ({"HTTPS_PROXY": ""}, None),
    ],
)
def test_the_machines_proxy_is_that_of_the_environment(
    env: dict[str, str], found: str | None
) -> None:
    proxy = proxy_of_machine(env, S3)

    assert (proxy.url if proxy else None) == found


@pytest.mark.parametrize(
    ("host", "direct"),
    [("10.1.2.3", True), ("10.1.2.3:9000", True), ("11.1.2.3", False), ("[fd00::9]", True),
     ("192.168.0.7", True)],
)  # fmt: skip
def test_networks_can_be_excluded(host: str, direct: bool) -> None:
    env = {"HTTP_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8,fd00::/8 192.168.0.7"}

    assert (proxy_of_machine(env, f"http://{host}") is None) == direct


def test_the_machines_proxy_may_have_a_login_and_must_be_one_of_http() -> None:
    proxy = proxy_of_machine({"HTTPS_PROXY": "http://u:p%40ss@proxy.internal:3128"}, S3)

    assert proxy is not None
    assert (proxy.url, proxy.user) == (PROXY, "u")
    assert proxy.reveal() == "http://u:p%40ss@proxy.internal:3128"
    with pytest.raises(InvalidUrl, match="ALL_PROXY: the address of its proxy"):
        proxy_of_machine({"ALL_PROXY": "socks5://u:hunter2@proxy.internal:1080"}, S3)


def test_the_first_prefix_that_names_anything_is_the_network(tmp_path: Path) -> None:
    env = {"B_PROXY": PROXY, "B_PROXY_USER": "u", "B_PROXY_PASSWORD": "p", "C_PROXY": "http://c"}

    found = network_named(env, ("A_", "B_", "C_"), "the KMS")

    assert found is not None
    assert found.proxies()["https"] == "http://u:p@proxy.internal:3128"
    assert network_named({}, ("A_",), "the KMS") is None
    with pytest.raises(ConfigError, match=r"A_CA_BUNDLE names .*none"):
        network_named({"A_CA_BUNDLE": str(tmp_path / "none")}, ("A_",), "the KMS")


@pytest.mark.parametrize("content", ["", "not a certificate", "-----BEGIN CERTIFICATE-----\nx\n"])
def test_a_bundle_without_certificates_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "bundle.pem").write_text(content)

    with pytest.raises(ConfigError, match="it holds no certificates"):
        check_bundle(str(tmp_path / "bundle.pem"), "AWS_CA_BUNDLE")


def test_every_reader_of_addresses_reads_a_server_alike() -> None:
    for good in ("s3.example.com", "10.0.0.5:9000", "[fd00::9]:443", "seaweed_fs:8333"):
        assert is_server(good)
    for bad in ("", "a b", "evil.example\\.s3.sa-east-1.amazonaws.com", "u@h", "h:", "ｓ３.com",
                "h%2e", "[::1", "h/", "h?"):  # fmt: skip
        assert not is_server(bad)
