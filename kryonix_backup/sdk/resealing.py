"""Sealing anew what a compromised key sealed, in every region of a tenant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kryonix_backup.errors import AlreadyRunning
from kryonix_backup.events import Listener, Progress
from kryonix_backup.model import KeyId
from kryonix_backup.repository.repository import Repository

Regions = Iterable[tuple[str, Repository]]


@dataclass(frozen=True, slots=True)
class ResealCost:
    """What a key sealed in one region, and so what sealing it anew reads and writes."""

    region: str
    objects: int
    bytes: int


def costs_of(regions: Regions, key: KeyId) -> list[ResealCost]:
    """What a key sealed in each region; reads the first bytes of every object."""
    costs = []
    for name, repository in regions:
        found = repository.resealer().sealed_by(key)
        costs.append(ResealCost(name, len(found), sum(info.size for info in found)))
    return costs


def reseal_all(regions: Callable[[], Regions], key: KeyId, listener: Listener) -> None:
    """
    Seal everything of that key anew, by the key that seals now.

    Raises AlreadyRunning where a backup has sealed more with it meanwhile.
    """
    for name, repository in regions():
        resealer = repository.resealer()
        objects = resealer.sealed_by(key)
        total, done = sum(info.size for info in objects), 0
        for count, info in enumerate(resealer.reseal(objects), 1):
            done += info.size
            listener(Progress(f"sealing anew in {name}", done, total, count, len(objects)))
    left = [name for name, each in regions() if each.resealer().sealed_by(key)]
    if left:
        raise AlreadyRunning(
            f"a backup has sealed more with key {key} in {', '.join(left)} meanwhile",
            "Wait for it to end, then run the same command again.",
        )
