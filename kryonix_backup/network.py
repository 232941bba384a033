"""
How a server is reached: by way of which proxy, and whose certificates are believed.

The clients of S3 and of the KMS are given all of it in so many words. Left to themselves each would
read other variables of the environment, and read the same ones in another way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from kryonix_backup.errors import ConfigError, InvalidUrl, SecretMissing, UsageError
from kryonix_backup.secret import Secret, first_line

_SERVER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_SCHEMES = ("http", "https")  # of what is asked for, by one proxy


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that forwards HTTP and tunnels the rest; its address holds no login."""

    url: str
    user: str | None = None
    password: Secret | None = None

    def __post_init__(self) -> None:
        user, password = self.user or "", self.password.reveal() if self.password else b""
        if ":" in user or not user.isascii() or not password.isascii():  # boto3 sends no other
            raise ConfigError(
                f"the login of the proxy {self.url} cannot be sent: its characters are not all of"
                " ASCII, or there is a colon in the user's name",
                "Have the proxy know this machine by another login.",
            )

    def reveal(self) -> str:
        """The address with the login in it, for the client that connects and nobody else."""
        if self.user is None or self.password is None:
            return self.url
        scheme, _, place = self.url.partition("://")
        user, password = quote(self.user, safe=""), quote(self.password.reveal(), safe="")
        return f"{scheme}://{user}:{password}@{place}"


@dataclass(frozen=True, slots=True)
class Network:
    """
    The way to a server. Without a proxy it is direct; without a bundle the machine's hold.

    ``endpoint`` is the server's URL inside a private network, asked in place of its public one.
    """

    proxy: Proxy | None = None
    ca_bundle: str | None = None
    endpoint: str | None = None

    @property
    def way(self) -> str:
        """The private endpoint and the proxy, as the end of a message about the server."""
        inside = f", reached at {self.endpoint}" if self.endpoint else ""
        return inside + (f" by way of {self.proxy.url}" if self.proxy else "")

    def proxies(self) -> dict[str, str]:
        """What boto3 calls proxies: none is a word too, which keeps it from the environment."""
        url = self.proxy.reveal() if self.proxy else None
        return dict.fromkeys(_SCHEMES, url) if url else {}


def is_server(netloc: str) -> bool:
    """
    Whether this is a host, with or without a port, that every reader of addresses reads alike.

    A backslash, for one, ends the host for some of them, and belongs to it for others.
    """
    return _SERVER.fullmatch(netloc) is not None


def proxy_at(url: str, what: str) -> Proxy:
    """
    The proxy at an address that may be shown; ``what`` says whose it is.

    Raises InvalidUrl, which does not repeat the address: it may hold a login.
    """
    proxy = _read(url, what)
    if proxy.user is not None:
        raise InvalidUrl(
            f"{what}: the address of its proxy holds a login, which it must not",
            "Set …_PROXY_USER and …_PROXY_PASSWORD_FILE in the environment (docs/isolation.md).",
        )
    return proxy


def check_addresses(named: Mapping[str, str], what: str) -> None:
    """Raise InvalidUrl where a ``proxy`` is none, or it or a ``private_endpoint`` has a login."""
    if "proxy" in named:
        proxy_at(named["proxy"], what)
    if "@" in named.get("private_endpoint", ""):
        raise InvalidUrl(
            f"{what}: its private endpoint holds a login, which it must not",
            "Take it out of the address; credentials come from the environment.",
        )


def with_login(proxy: Proxy, env: Mapping[str, str], prefix: str, what: str) -> Proxy:
    """
    The proxy with the login of ``{prefix}PROXY_USER`` and ``…_PROXY_PASSWORD``, or ``…_FILE``.

    Raises SecretMissing where half of it is set, or the file cannot be read.
    """
    names = [f"{prefix}PROXY_{each}" for each in ("USER", "PASSWORD", "PASSWORD_FILE")]
    user, password, path = (env.get(name) or None for name in names)
    if path is not None and password is not None:
        raise UsageError(f"{names[1]} and {names[2]} are both set; set one")
    word = Secret(password) if password else None
    if path is not None:
        word = first_line("password", names[2], path)
    if (user is None) != (word is None):
        missing = names[0] if user is None else names[1]
        raise SecretMissing(f"{what}: {missing} is not set", f"Set {names[0]} and {names[2]}.")
    return Proxy(proxy.url, user, word)


def network_named(env: Mapping[str, str], prefixes: Iterable[str], what: str) -> Network | None:
    """
    The network of the first prefix with a ``…PROXY`` or a ``…CA_BUNDLE``; None where none has one.

    Raises InvalidUrl, ConfigError and SecretMissing.
    """
    for prefix in prefixes:
        url, bundle = env.get(f"{prefix}PROXY"), env.get(f"{prefix}CA_BUNDLE") or None
        if bundle:
            check_bundle(bundle, f"{prefix}CA_BUNDLE")
        if url or bundle:
            proxy = with_login(proxy_at(url, what), env, prefix, what) if url else None
            return Network(proxy, bundle)
    return None


def proxy_of_machine(env: Mapping[str, str], endpoint: str) -> Proxy | None:
    """
    The proxy that the environment names for this server: ``HTTPS_PROXY``, ``NO_PROXY`` and so on.

    Raises InvalidUrl where it is not one of HTTP's.
    """
    there = urlsplit(endpoint)
    found = [_variable(env, f"{there.scheme}_proxy"), _variable(env, "all_proxy")]
    name, url = next((row for row in found if row[1]), ("", ""))
    host, excluded = there.hostname or "", _variable(env, "no_proxy")[1]
    if not url or any(_is_in(host, each) for each in excluded.replace(",", " ").split()):
        return None
    return _read(url if "://" in url else f"http://{url}", name)


def check_bundle(path: str, what: str) -> None:
    """Raise ConfigError where the file holds no certificates that could be believed."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError as error:  # an SSLError is one
        said = error.strerror if type(error) is not ssl.SSLError else "it holds no certificates"
        raise ConfigError(
            f"{what} names {path}: {said}",
            "Let it be a file of certificates in PEM form, on every machine that runs backups.",
        ) from error


def _read(url: str, what: str) -> Proxy:
    parts = _parts(url)
    if parts is None:
        raise InvalidUrl(
            f"{what}: the address of its proxy is not like http://host:port",
            "Only proxies that are spoken to in plain HTTP are used: write http://, host and port.",
        )
    host = (parts.hostname or "").rstrip(".")
    place = f"[{host}]" if ":" in host else host
    clean = f"http://{place}:{parts.port or 80}"
    if parts.username is None:
        return Proxy(clean)
    return Proxy(clean, unquote(parts.username), Secret(unquote(parts.password or "")))


def _parts(url: str) -> SplitResult | None:
    """The parts of a proxy's address; None where it is none, or not read by all alike."""
    try:
        parts = urlsplit(url)
        usable = parts.port != 0 and parts.scheme == "http" and parts.hostname
    except ValueError:
        return None
    alone = url.rstrip("/") == f"{url.partition('://')[0]}://{parts.netloc}"
    return parts if usable and alone and is_server(parts.netloc.rpartition("@")[2]) else None


def _variable(env: Mapping[str, str], name: str) -> tuple[str, str]:
    for each in (name, name.upper()):
        if env.get(each):
            return each, env[each]
    return name.upper(), ""


def _is_in(host: str, excluded: str) -> bool:
    """Whether a host is what is excluded: everything, an address, a network, or a name's part."""
    import ipaddress

    if excluded == "*":
        return True
    try:
        address, place = ipaddress.ip_address(host), ipaddress.ip_network(excluded, strict=False)
    except ValueError:
        name = excluded.lower().strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    return address in place
