"""
Which jurisdictions may hold a tenant's data, and in which one a region is.

A region is where its operator says, or, at Amazon's own addresses, where Amazon's region is. One of
which neither is known is outside of every list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from kryonix_backup.errors import ResidencyViolation
from kryonix_backup.model import TenantId
from kryonix_backup.settings import RegionSettings, TenantSettings, Transfer
from kryonix_backup.storage.location import Directory, parse_location, server_url

EU = "EU"
_COUNTRIES = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
_MEMBERS = frozenset(_COUNTRIES.split())
# Personal data does not leave these without a reason that the law knows (LGPD 33, GDPR 44).
_GUARDED = ("BR", EU)

# Amazon's regions: the name says less than it seems to (eu-west-2 is London, eu-central-2 Zurich).
_AMAZON = {
    "US": "us-east-1 us-east-2 us-west-1 us-west-2 us-gov-east-1 us-gov-west-1",
    "BR": "sa-east-1",
    "CA": "ca-central-1 ca-west-1",
    "MX": "mx-central-1",
    "DE": "eu-central-1 eusc-de-east-1",
    "IE": "eu-west-1",
    "FR": "eu-west-3",
    "SE": "eu-north-1",
    "IT": "eu-south-1",
    "ES": "eu-south-2",
    "GB": "eu-west-2",
    "CH": "eu-central-2",
    "IL": "il-central-1",
    "ZA": "af-south-1",
    "AE": "me-central-1",
    "BH": "me-south-1",
    "IN": "ap-south-1 ap-south-2",
    "JP": "ap-northeast-1 ap-northeast-3",
    "KR": "ap-northeast-2",
    "SG": "ap-southeast-1",
    "AU": "ap-southeast-2 ap-southeast-4",
    "ID": "ap-southeast-3",
    "MY": "ap-southeast-5",
    "NZ": "ap-southeast-6",
    "TH": "ap-southeast-7",
    "TW": "ap-east-2",
    "HK": "ap-east-1",
    "CN": "cn-north-1 cn-northwest-1",
}
_OF_AMAZON = {name: place for place, names in _AMAZON.items() for name in names.split()}
_AMAZONS = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu")


@dataclass(frozen=True, slots=True)
class Residency:
    """Whose data it is, and the jurisdictions that may hold it; an empty list allows every one."""

    tenant: TenantId | None = None
    allowed: tuple[str, ...] = ()
    transfers: tuple[Transfer, ...] = ()

    @classmethod
    def of(cls, settings: TenantSettings) -> Self:
        """A tenant's."""
        return cls(settings.id, settings.residency, settings.transfers)

    def check(self, what: str, jurisdiction: str | None) -> None:
        """
        Raise ResidencyViolation unless ``what`` may hold the data where it is.

        None is an unknown jurisdiction. Also raised where the list names Brazil or the EU, and the
        data would leave them for a jurisdiction without a transfer that was recorded.
        """
        if not self.allowed:
            return
        listed = ", ".join(self.allowed)
        if jurisdiction is None:
            raise ResidencyViolation(
                f"{what} is in no known jurisdiction, and the data of tenant {self.tenant} may be"
                f" kept in {listed} only"
            )
        if not any(within(jurisdiction, place) for place in self.allowed):
            raise ResidencyViolation(
                f"{what} is in {jurisdiction}, and the data of tenant {self.tenant} may be kept in"
                f" {listed} only"
            )
        self._check_transfer(what, jurisdiction)

    def _check_transfer(self, what: str, jurisdiction: str) -> None:
        homes = [home for home in _GUARDED if any(within(place, home) for place in self.allowed)]
        leaving = [home for home in homes if not within(jurisdiction, home)]
        recorded = any(within(jurisdiction, each.jurisdiction) for each in self.transfers)
        if leaving and not recorded:
            raise ResidencyViolation(
                f"{what} is in {jurisdiction}: the data of tenant {self.tenant} would leave"
                f" {leaving[0]} without a recorded transfer mechanism",
                "Record why it may, under transfers in the tenant's file: jurisdiction"
                f" {jurisdiction} and the mechanism, such as a decision or a contract; or use"
                " another region.",
            )


ANYWHERE = Residency()
"""For a store of nobody's data: tests, benchmarks, and a tenant that is not known yet."""


def within(jurisdiction: str, place: str) -> bool:
    """Whether a jurisdiction is the place, or a member of it."""
    return jurisdiction == place or (place == EU and jurisdiction in _MEMBERS)


def jurisdiction_of(region: RegionSettings) -> str | None:
    """
    Where a region is; None where nobody knows.

    With a private endpoint the data goes there: its address counts too. Raises InvalidUrl, and
    ResidencyViolation where the operator says one thing and an address another.
    """
    place, said = parse_location(region.url), region.jurisdiction
    if isinstance(place, Directory):
        return said
    servers = {"address": place.endpoint}
    if region.private_endpoint is not None:
        servers["private endpoint"] = region.private_endpoint
    named = {what: _region_named(url) for what, url in servers.items()}
    for what, name in named.items():
        derived = None if name is None else amazon_jurisdiction(name)
        if said is not None and derived is not None and not within(derived, said):
            raise ResidencyViolation(
                f"region {region.name} is said to be in {said}, and its {what} is in {derived}",
                "Correct its jurisdiction, or its address.",
            )
    # A server that is not Amazon's is unknown, and so is one beside another region's word.
    known = set(named.values()) == {place.region}
    return amazon_jurisdiction(place.region) if known else said


def check_region(region: RegionSettings, residency: Residency) -> None:
    """Raise ResidencyViolation unless the region may hold the data, and InvalidUrl."""
    place = parse_location(region.url)
    found = jurisdiction_of(region)
    residency.check(f"region {region.name} ({place.address})", found)


def amazon_jurisdiction(region: str) -> str | None:
    """Where a region of Amazon's is, for buckets and for keys; None where it is not in our list."""
    return _OF_AMAZON.get(region)


def _region_named(endpoint: str) -> str | None:
    """The one region of Amazon's that a server's name tells; None for any other server."""
    host = urlsplit(server_url(endpoint) or "").hostname or ""
    if not host.endswith(_AMAZONS):
        return None
    named = [label for label in host.split(".") if label in _OF_AMAZON]
    return named[0] if len(named) == 1 else None
