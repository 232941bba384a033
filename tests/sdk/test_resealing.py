"""The cost of sealing anew is told for each region, and nothing of the key is left afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kryonix_backup.crypto.keys import KeyState, Purpose
from kryonix_backup.errors import AlreadyRunning
from kryonix_backup.events import Progress, quiet
from kryonix_backup.maintenance.key_care import KeyCare
from kryonix_backup.model import KeyId
from kryonix_backup.repository.repository import Repository
from kryonix_backup.sdk.resealing import costs_of, reseal_all
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.repositories import (
    ACME,
    RecordingStore,
    back_up,
    key_file,
    new_repository,
    reopened,
)
from kryonix_backup.testing.sources import MemorySource, Thing


def _compromised() -> tuple[RecordingStore, KeyId]:
    store = RecordingStore()
    back_up(new_repository(store), MemorySource({b"file": Thing(bytes(range(256)) * 300)}))
    keyring = KeyCare(ACME, [store], key_file(), FixedClock()).set_state("1", KeyState.COMPROMISED)
    return store, next(each.id for each in keyring.records if each.purpose is Purpose.DATA)


def test_each_region_is_counted_and_done() -> None:
    store, key = _compromised()
    there = [info for info in store.list("") if not info.name.startswith(("keys/", "format"))]
    told: list[Progress] = []

    (cost,) = costs_of([("primary", reopened(store))], key)
    reseal_all(lambda: [("primary", reopened(store))], key, told.append)

    assert (cost.region, cost.objects) == ("primary", len(there))
    assert cost.bytes == sum(info.size for info in there)
    assert told[-1].bytes_done == told[-1].bytes_total == cost.bytes
    assert told[-1].entries_done == told[-1].entries_total == cost.objects
    assert costs_of([("primary", reopened(store))], key)[0].objects == 0


def test_what_was_sealed_meanwhile_is_told() -> None:
    store, key = _compromised()
    before = RecordingStore()
    before.objects.update(store.objects)
    times = 0

    def regions() -> Iterator[tuple[str, Repository]]:
        nonlocal times
        times += 1
        if times == 2:  # a backup that began before has come to its end
            store.objects.update(
                {name: body for name, body in before.objects.items() if name.startswith("packs/")}
            )
        yield "primary", reopened(store)

    with pytest.raises(AlreadyRunning, match="in primary meanwhile"):
        reseal_all(regions, key, quiet)
