"""Where a tenant's settings lead its data, held against its residency before anything moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kryonix_backup.crypto.stores.location import KmsLocation, parse_key_store
from kryonix_backup.settings import RegionSettings, TenantSettings, jurisdiction
from kryonix_backup.storage.residency import Residency, amazon_jurisdiction, check_region

HERE = "KRYONIX_JURISDICTION"
"""Where this machine is, and the servers that it restores to."""


def taken_over(newest: TenantSettings, regions: Sequence[RegionSettings]) -> TenantSettings:
    """
    The settings of a snapshot, with these regions in place of its own of the same name.

    A region at an address that the snapshot knows is where the snapshot says. Raises
    ResidencyViolation.
    """
    known = {each.url: each.jurisdiction for each in newest.regions}
    given = {
        each.name: replace(each, jurisdiction=each.jurisdiction or known.get(each.url))
        for each in regions
    }
    for each in given.values():
        check_region(each, Residency.of(newest))
    others = [each for each in newest.regions if each.name not in given]
    return replace(newest, regions=(*given.values(), *others))


def reached_as(known: TenantSettings, regions: Sequence[RegionSettings]) -> list[RegionSettings]:
    """The regions, each with the network that the settings know for its address."""
    networks = {each.url: each.network for each in known.regions}
    return [replace(each, **(each.network or networks.get(each.url, {}))) for each in regions]


def check_key_store(settings: TenantSettings, url: str | None) -> None:
    """
    Raise ResidencyViolation where a tenant's keys would be kept outside of its jurisdictions.

    A KMS is where Amazon's region is, and at an endpoint of another's nobody knows where; an HSM is
    with whoever has it. Raises InvalidUrl.
    """
    if not url:
        return
    location = parse_key_store(url, settings.id)
    if isinstance(location, KmsLocation):
        place = None if location.endpoint else amazon_jurisdiction(location.region)
        Residency.of(settings).check(f"the key store {location.address}", place)


def check_targets(
    settings: TenantSettings, targets: Mapping[str, str], env: Mapping[str, str]
) -> None:
    """
    Raise ResidencyViolation where a restore would bring data to where it may not be.

    Every target is where ``KRYONIX_JURISDICTION`` says that this machine is. Where it says nothing
    a source may go back to its own address, and nowhere else.
    """
    sources: dict[str, str] = {source.name: source.url for source in settings.sources}
    here = env.get(HERE)
    for name, target in targets.items():
        if here or target != sources.get(name):
            Residency.of(settings).check(
                f"the target {target} of a restore", jurisdiction(here) if here else None
            )
