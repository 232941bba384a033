"""
Plain settings of a tenant, its regions and its sources, and `Secret`.

A *region* is a name and the address of this tenant's bucket or directory there. Addresses hold no
secret: credentials come from the environment, a file or a block.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from kryonix_backup.errors import ConfigError, InvalidName, SecretMissing, UsageError
from kryonix_backup.limits import LimitSettings
from kryonix_backup.model import RegionName, SourceName, TenantId, Tier, check_name, tenant_id
from kryonix_backup.network import Network, check_addresses, network_named
from kryonix_backup.secret import Secret

__all__ = [
    "PRIMARY", "KeySettings", "KeyStoreSettings", "RegionSettings", "RootKey", "Secret",
    "SourceSettings", "TenantSettings", "Transfer", "home_directory", "jurisdiction",
]  # fmt: skip

PRIMARY = RegionName("primary")
_NETWORK = ("private_endpoint", "proxy", "ca_bundle")
_JURISDICTION = re.compile(r"[A-Z][A-Z0-9-]{1,39}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RegionSettings:
    """
    Where a tenant's repository is in one region.

    Credentials are for S3 only; without them those that are kept for the tenant are used, or the
    environment's (``AWS_ACCESS_KEY_ID``, or ``KRYONIX_{REGION}_ACCESS_KEY_ID`` for one region).
    ``jurisdiction`` is where the operator says the region is; ``private_endpoint`` is how its
    server is reached without a public network, in place of the endpoint in the URL. ``proxy`` is
    the only way to it, and ``ca_bundle`` a file of the authorities whose certificates it may show.
    """

    name: RegionName
    url: str
    access_key_id: str | None = None
    secret_access_key: Secret | None = None
    jurisdiction: str | None = None
    private_endpoint: str | None = None
    proxy: str | None = None
    ca_bundle: str | None = None

    @property
    def variables(self) -> str:
        """How the names of its variables in the environment begin."""
        return f"KRYONIX_{self.name.upper().replace('-', '_')}_"

    @property
    def network(self) -> dict[str, Any]:
        """What the region says of its network, by the names of the settings."""
        found = {name: getattr(self, name) for name in _NETWORK}
        return {name: value for name, value in found.items() if value is not None}

    def to_plain(self) -> dict[str, Any]:
        """The region as JSON can say it, without any secret and without what is not set."""
        said = {} if self.jurisdiction is None else {"jurisdiction": self.jurisdiction}
        return {"name": self.name, "url": self.url, **said, **self.network}

    @classmethod
    def from_plain(cls, row: Mapping[str, Any]) -> Self:
        """A region out of `to_plain`'s form; raises InvalidName, ConfigError and KeyError."""
        unknown = set(row) - {"name", "url", "jurisdiction", *_NETWORK}
        if unknown:
            raise ConfigError(f"a region has no setting {sorted(unknown)[0]!r}")
        name = check_name(row["name"], "region")
        if name == "kms" or name.endswith(("-kms", "-admin")):  # whose variables are others'
            raise InvalidName(f"{name!r} is not a region's name: it ends in -admin or kms")
        place = row.get("jurisdiction")
        said: dict[str, Any] = {key: str(row[key]) for key in _NETWORK if row.get(key) is not None}
        check_addresses(said, f"region {name}")
        return cls(
            RegionName(name),
            str(row["url"]),
            jurisdiction=None if place is None else jurisdiction(place),
            **said,
        )


class Transfer(NamedTuple):
    """Why data of Brazil or the EU may be kept in another jurisdiction, as the operator says."""

    jurisdiction: str
    mechanism: str


def jurisdiction(name: Any) -> str:
    """A jurisdiction's name as it is compared: in capitals; raises ConfigError."""
    if not isinstance(name, str) or not _JURISDICTION.fullmatch(name.upper()):
        raise ConfigError(
            f"{name!r} is not a jurisdiction",
            "Write a country's code of two letters such as BR, EU, or a name of your own.",
        )
    return name.upper()


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """One source of a tenant: a name and an address, and what to leave out of it."""

    name: SourceName
    url: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    one_file_system: bool = False
    compression: str = "adaptive"


@dataclass(frozen=True, slots=True)
class KeySettings:
    """
    Where a tenant's master key is, and after how many days keys are due to be changed: None for as
    many as the tier says.

    ``store`` is the URL of an HSM or KMS, None for what the environment names; the keys are wrapped
    for ``second`` too, so that the loss of the first loses no key.
    """

    store: str | None = None
    second: str | None = None
    data_days: int | None = None
    master_days: int | None = None
    archive_days: int | None = None
    fips: bool = False

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Settings of keys, checked; raises ConfigError."""
        unknown = sorted(set(plain) - set(cls.__dataclass_fields__))
        if unknown:
            raise ConfigError(f"keys have no setting {unknown[0]!r}")
        made = cls(**plain)
        for name in ("data_days", "master_days", "archive_days"):
            days = getattr(made, name)
            if days is not None and (type(days) is not int or not 1 <= days <= 3650):
                raise ConfigError(f"keys: {name} is {days!r}, not a number of days from 1 to 3650")
        if type(made.fips) is not bool:
            raise ConfigError(f"keys: fips is {made.fips!r}, neither true nor false")
        for name in ("store", "second"):
            if not isinstance(getattr(made, name), str | None):
                raise ConfigError(f"keys: {name} is no address of a key store")
        return made


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """Everything about a tenant that is not secret."""

    id: TenantId
    tier: Tier
    regions: tuple[RegionSettings, ...]
    sources: tuple[SourceSettings, ...]
    residency: tuple[str, ...] = ()
    keys: KeySettings = KeySettings()
    limits: LimitSettings = field(default_factory=LimitSettings)
    transfers: tuple[Transfer, ...] = ()
    system_user: bool = False

    @property
    def primary(self) -> RegionSettings:
        """The region that backups go to first."""
        return self.region(PRIMARY)

    def region(self, name: str) -> RegionSettings:
        """The region of that name; raises ConfigError."""
        for region in self.regions:
            if region.name == name:
                return region
        known = ", ".join(region.name for region in self.regions) or "none"
        raise ConfigError(f"tenant {self.id} has no region {name!r} (it has: {known})")

    def source(self, name: str) -> SourceSettings:
        """The source of that name; raises ConfigError."""
        for source in self.sources:
            if source.name == name:
                return source
        known = ", ".join(source.name for source in self.sources) or "none"
        raise ConfigError(f"tenant {self.id} has no source {name!r} (it has: {known})")

    def to_plain(self) -> dict[str, Any]:
        """The settings as JSON can say them, without any secret."""
        return {
            "id": self.id,
            "tier": self.tier,
            "residency": list(self.residency),
            "limits": self.limits.to_plain(),
            "transfers": [transfer._asdict() for transfer in self.transfers],
            "isolation": {"system_user": self.system_user},
            "regions": [region.to_plain() for region in self.regions],
            "sources": [
                {
                    key: list(value) if isinstance(value, tuple) else value
                    for key, value in asdict(source).items()
                }
                for source in self.sources
            ],
            "keys": asdict(self.keys),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """
        Settings out of `to_plain`'s form, checked; whether there is such a tier is not asked here.

        Raises InvalidName and ConfigError, naming what is wrong.
        """
        try:
            regions = tuple(RegionSettings.from_plain(row) for row in plain["regions"])
            sources = tuple(_source(row) for row in plain["sources"])
            tier = Tier(check_name(plain["tier"], "tier"))
            keys = KeySettings.from_plain(plain.get("keys", {}))
            residency = tuple(jurisdiction(name) for name in plain.get("residency", ()))
            transfers = tuple(_transfer(row) for row in plain.get("transfers", ()))
            system_user = _isolation(plain.get("isolation", {}))
        except KeyError as error:
            raise ConfigError(f"the tenant's settings lack {error.args[0]!r}") from error
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"the tenant's settings have the wrong form: {error}") from error
        for what, names in (
            ("region", [region.name for region in regions]),
            ("source", [source.name for source in sources]),
        ):
            twice = {name for name in names if list(names).count(name) > 1}
            if twice:
                raise ConfigError(f"the {what} {sorted(twice)[0]!r} is named twice")
        if PRIMARY not in [region.name for region in regions]:
            raise ConfigError("a tenant needs a region named 'primary'")
        limits = LimitSettings.from_plain(plain.get("limits", {}))
        return cls(
            tenant_id(plain["id"]), tier, regions, sources, residency, keys, limits, transfers,
            system_user,
        )  # fmt: skip


def _transfer(row: Mapping[str, Any]) -> Transfer:
    if set(row) != {"jurisdiction", "mechanism"} or not str(row["mechanism"]).strip():
        raise ConfigError("a transfer is a jurisdiction and the mechanism that allows it")
    return Transfer(jurisdiction(row["jurisdiction"]), str(row["mechanism"]))


def _isolation(plain: Mapping[str, Any]) -> bool:
    if set(plain) - {"system_user"}:
        raise ConfigError("the isolation of a tenant has no setting but system_user")
    wanted = plain.get("system_user", False)
    if not isinstance(wanted, bool):
        raise ConfigError(f"isolation.system_user is true or false, not {wanted!r}")
    return wanted


def _source(row: Mapping[str, Any]) -> SourceSettings:
    known = set(SourceSettings.__dataclass_fields__)
    unknown = set(row) - known
    if unknown:
        raise ConfigError(f"a source has no setting {sorted(unknown)[0]!r}")
    return SourceSettings(
        name=SourceName(check_name(row["name"], "source")),
        url=str(row["url"]),
        include=tuple(row.get("include", ())),
        exclude=tuple(row.get("exclude", ())),
        one_file_system=bool(row.get("one_file_system", False)),
        compression=str(row.get("compression", "adaptive")),
    )


@dataclass(frozen=True, slots=True)
class KeyStoreSettings:
    """
    An HSM or KMS that keeps a tenant's master key, and what lets us in.

    ``pkcs11://…`` needs the ``pin`` of its token, ``kms://…`` a key pair; ``network`` is the way to
    a KMS, None for whatever the environment says to every program.
    """

    url: str
    pin: Secret | None = None
    access_key_id: str | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    network: Network | None = None


@dataclass(frozen=True, slots=True)
class RootKey:
    """
    Where a tenant's master key comes from: a passphrase that people can remember, a key file of at
    least 32 random bytes, or a store that never gives it away. Exactly one of the three is set.
    """

    passphrase: Secret | None = field(default=None)
    key_file: Secret | None = field(default=None)
    store: KeyStoreSettings | None = field(default=None)

    @classmethod
    def from_environment(
        cls, env: Mapping[str, str], tenant: TenantId, store_url: str | None = None
    ) -> Self:
        """
        The root that the environment names for this tenant.

        ``KRYONIX_{TENANT}_PASSPHRASE`` and so on (hyphens as underscores) come before
        ``KRYONIX_PASSPHRASE``, ``…_PASSPHRASE_FILE``, ``…_KEY_FILE`` and ``…_KEY_STORE``. With
        ``store_url`` the root is that store, and only what lets us in is looked for. Raises
        SecretMissing, and UsageError where two of them are set.
        """
        if store_url:
            return cls(store=_key_store(env, tenant, store_url))
        ends = ("PASSPHRASE", "PASSPHRASE_FILE", "KEY_FILE", "KEY_STORE")
        found = _first_set(env, tenant, *ends)
        if found is None:
            raise SecretMissing(f"no passphrase, key file or key store is set for tenant {tenant}")
        name, value = found
        if name.endswith("KEY_STORE"):
            return cls(store=_key_store(env, tenant, value))
        if name.endswith("KEY_FILE"):
            content = _read_secret_file(name, value)
            if len(content) < 32:
                raise SecretMissing(f"the key file {value} holds fewer than 32 bytes")
            return cls(key_file=Secret(content))
        return cls(passphrase=_word("passphrase", name, value))


def _first_set(env: Mapping[str, str], tenant: TenantId, *ends: str) -> tuple[str, str] | None:
    """The one variable of these that is set, the tenant's own before the common ones."""
    for prefix in _prefixes(tenant):
        found = [name for name in (prefix + end for end in ends) if env.get(name)]
        if len(found) > 1:
            raise UsageError(f"{found[0]} and {found[1]} are both set; set one")
        if found:
            return found[0], env[found[0]]
    return None


def _prefixes(tenant: TenantId) -> tuple[str, str]:
    return f"KRYONIX_{tenant.upper().replace('-', '_')}_", "KRYONIX_"


def _word(what: str, variable: str, value: str) -> Secret:
    """A secret that people type: the variable's value, or the first line of the file it names."""
    if not variable.endswith("_FILE"):
        return Secret(value)
    lines = _read_secret_file(variable, value).splitlines()
    if not lines or not lines[0]:
        raise SecretMissing(f"the {what} file {value} is empty")
    return Secret(lines[0])


def _key_store(env: Mapping[str, str], tenant: TenantId, url: str) -> KeyStoreSettings:
    if url.startswith("kms:"):
        return _kms(env, tenant, url)
    found = _first_set(env, tenant, "PIN", "PIN_FILE")
    own = _prefixes(tenant)[0]
    if found is None and url.startswith("pkcs11:"):
        raise SecretMissing(
            f"tenant {tenant} has its key in an HSM, and no PIN is set",
            f"Set {own}PIN_FILE (or KRYONIX_PIN_FILE) to a file whose first line is the PIN.",
        )
    return KeyStoreSettings(url, pin=_word("PIN", *found) if found else None)


def _kms(env: Mapping[str, str], tenant: TenantId, url: str) -> KeyStoreSettings:
    own, common = _prefixes(tenant)
    names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
    for prefix in (f"{own}KMS_", f"{common}KMS_", "AWS_"):
        key, secret, token = (env.get(prefix + name) for name in names)
        if key and secret:
            session = Secret(token) if token else None
            way = network_named(env, (f"{own}KMS_", f"{common}KMS_"), f"the KMS of tenant {tenant}")
            return KeyStoreSettings(url, None, key, Secret(secret), session, way)
        if key or secret:
            missing = prefix + names[bool(key)]
            raise SecretMissing(f"tenant {tenant}: {missing} is not set", f"Set {missing}.")
    raise SecretMissing(
        f"tenant {tenant} has its key in a KMS, and no credentials are set for it",
        f"Set {common}KMS_{names[0]} and {common}KMS_{names[1]}, or AWS_{names[0]} and so on.",
    )


def _read_secret_file(variable: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SecretMissing(f"{variable} names {path}: {error.strerror}") from error


def home_directory(env: Mapping[str, str] | None = None) -> Path:
    """Where tenants' settings and local state are kept: ``$KRYONIX_HOME``."""
    env = os.environ if env is None else env
    return Path(env.get("KRYONIX_HOME") or Path.home() / ".local/share/kryonix")
