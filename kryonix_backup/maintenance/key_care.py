"""
Changing a tenant's keys, in every region.

Each change writes the next generation of the keyring in the primary region, by a conditional
create: there it happened, or it did not. Then the other regions get it, and then older generations
go. A change that was cut short after the first step is completed by the next one, or by `settle`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from kryonix_backup.clock import Clock
from kryonix_backup.crypto.keyring import Keyring, Recipient, new_key, seal_keyring
from kryonix_backup.crypto.keys import KeyRecord, KeyState, Owner, Purpose
from kryonix_backup.crypto.keystore import KeyStore
from kryonix_backup.crypto.stores.escrow import escrow_of
from kryonix_backup.errors import AlreadyRunning, KeyRefused, KeyUnusable, ObjectExists
from kryonix_backup.model import KeyId, TenantId
from kryonix_backup.repository.keyrings import (
    catch_up,
    described_at,
    generations,
    load_keyring,
    mirror,
    remove_older,
)
from kryonix_backup.repository.layout import keyring_name
from kryonix_backup.settings import Secret
from kryonix_backup.storage.store import ObjectStore

log = logging.getLogger(__name__)

_AGAIN = "See 'kryonix keys ID show', then run the same command again."

# What an operator may make of a key in each state; the rest is refused. Only what has nothing left
# to open is destroyed: that is for `reseal` to say.
_NEXT: Mapping[KeyState, frozenset[KeyState]] = {
    KeyState.PRE_ACTIVE: frozenset({KeyState.COMPROMISED}),
    KeyState.ACTIVE: frozenset({KeyState.DECRYPT_ONLY, KeyState.SUSPENDED, KeyState.COMPROMISED}),
    KeyState.DECRYPT_ONLY: frozenset({KeyState.SUSPENDED, KeyState.COMPROMISED}),
    KeyState.SUSPENDED: frozenset({KeyState.ACTIVE, KeyState.DECRYPT_ONLY, KeyState.COMPROMISED}),
    KeyState.COMPROMISED: frozenset(),
    KeyState.DESTROYED: frozenset(),
}


_NEVER = datetime.min.replace(tzinfo=UTC)
_CLOCKS_DIFFER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """After how many days a data key, the master key and an archive key are due to be changed."""

    data_days: int
    master_days: int
    archive_days: int

    def data_due(self, keyring: Keyring) -> datetime:
        """When the data key that seals now has to make way for a new one."""
        return _newest(keyring, Purpose.DATA) + timedelta(days=self.data_days)

    def archive_due(self, keyring: Keyring) -> datetime:
        """When the archive key has to make way for a new one; the year 1 where there is none."""
        newest = _newest(keyring, Purpose.ARCHIVE)
        return newest if newest == _NEVER else newest + timedelta(days=self.archive_days)

    def master_due(self, keyring: Keyring) -> datetime:
        """When the master key has to make way for a new one."""
        return keyring.master_since + timedelta(days=self.master_days)

    def due(self, keyring: Keyring, now: datetime) -> list[str]:
        """
        What has to make way now.

        So has what seals only since a time to come: a clock was wrong when it was made, and would
        keep it for as long as it was wrong.
        """
        ends = {
            "data": (self.data_due(keyring), self.data_days),
            "master": (self.master_due(keyring), self.master_days),
            "archive": (self.archive_due(keyring), self.archive_days),
        }
        latest = now + _CLOCKS_DIFFER
        return [
            what
            for what, (end, days) in ends.items()
            if end <= now or end > latest + timedelta(days=days)
        ]


class KeyCare:
    """
    The keys of one tenant in the stores of its regions, of which the first is the primary.

    Every method raises KeyRefused where the master does not open the newest keyring, and
    AlreadyRunning where another change was quicker.
    """

    def __init__(
        self,
        tenant: TenantId,
        stores: Sequence[ObjectStore],
        master: KeyStore,
        clock: Clock,
        *,
        second: KeyStore | None = None,
    ) -> None:
        """``second`` is a master that the keys are wrapped for too."""
        self._stores = stores
        self._master = master
        self._second = [] if second is None else [second]
        self._clock = clock
        self._owner = Owner(described_at(stores[0]).repository, tenant)

    def keyring(self) -> Keyring:
        """The keys as the primary region has them; changes nothing."""
        return load_keyring(self._stores[0], self._owner, self._master)

    def settle(self) -> Keyring:
        """Bring every region to the newest generation and remove older ones; the keys."""
        primary, *others = self._stores
        catch_up(primary, others, self._owner, self._master)
        keyring = self.keyring()
        for other in others:
            mirror(primary, other, self._owner)
        for store in self._stores:
            if keyring.generation:
                remove_older(store, self._owner, keyring.generation)
        return keyring

    def is_settled(self) -> bool:
        """Whether every region has the newest generation, and nothing else."""
        there = [generations(store, self._owner) for store in self._stores]
        return all(each == there[0] and len(each) < 2 for each in there)

    def prepare(self, purpose: Purpose) -> Keyring:
        """Make the key of the next epoch, which is in every region before `rotate` takes it up."""

        def change(keyring: Keyring) -> Keyring:
            if _prepared(keyring, purpose) is not None:
                return keyring
            fresh = replace(
                new_key(purpose, _last_epoch(keyring, purpose) + 1, self._clock.now()),
                state=KeyState.PRE_ACTIVE,
            )
            return replace(keyring, records=(*keyring.records, fresh))

        return self._change(change)

    def rotate(self, purpose: Purpose) -> Keyring:
        """
        Start an epoch of data or archive keys: a new one seals, and those before only open.

        The one that was prepared is taken, if there is one.
        """
        now = self._clock.now()

        def change(keyring: Keyring) -> Keyring:
            records = [
                replace(record, state=KeyState.DECRYPT_ONLY, changed=now)
                if record.purpose is purpose and record.state is KeyState.ACTIVE
                else record
                for record in keyring.records
            ]
            prepared = _prepared(keyring, purpose)
            if prepared is None:
                fresh = new_key(purpose, _last_epoch(keyring, purpose) + 1, now)
            else:
                fresh = replace(prepared, state=KeyState.ACTIVE, changed=now)
            kept = (each for each in records if each.id != fresh.id)
            return replace(keyring, records=(*kept, fresh))

        return self._change(change)

    def rotate_master(self, new: KeyStore) -> Keyring:
        """
        Wrap the same keys for a new master; the old one opens nothing any more.

        The old and the new one may live in different kinds of key stores. Where a change to this
        new master was cut short, it is completed.
        """
        try:
            self.keyring()
        except KeyRefused as error:
            self._master = new
            try:
                keyring = self.settle()
            except KeyRefused:
                raise error from None
            log.info("the keys were wrapped for the new master already")
            return keyring
        now = self._clock.now()
        return self._change(lambda keyring: replace(keyring, master_since=now), [new])

    def set_state(self, key: str, state: KeyState) -> Keyring:
        """
        Change what may be done with a data key, named by its id or its epoch.

        Whatever the key sealed stays as it is. Where the key that seals may seal no more, a new
        one is made. Raises KeyUnusable where there is no such key, or its state does not allow
        this one to follow.
        """

        def change(keyring: Keyring) -> Keyring:
            chosen = _chosen(keyring, key)
            if state not in _NEXT[chosen.state]:
                allowed = ", ".join(sorted(_NEXT[chosen.state]))
                raise KeyUnusable(
                    f"key {chosen.id} is {chosen.state.value}, and cannot become {state.value}",
                    f"It can become {allowed}." if allowed else "Nothing can follow that state.",
                )
            return self._changed(keyring, replace(chosen, state=state))

        return self._change(change)

    def key_id(self, key: str) -> KeyId:
        """The id of the data key of that id or epoch; raises KeyUnusable."""
        return _chosen(self.keyring(), key).id

    def compromised(self, key: str) -> KeyId:
        """The id of a compromised data key; raises KeyUnusable where it is in another state."""
        return _compromised(self.keyring(), key).id

    def destroy_data_key(self, key: str) -> Keyring:
        """Forget the secret of a compromised data key; raises KeyUnusable as `compromised`."""

        def change(keyring: Keyring) -> Keyring:
            chosen = _compromised(keyring, key)
            gone = replace(chosen, state=KeyState.DESTROYED, secret=Secret(b""))
            return self._changed(keyring, gone)

        return self._change(change)

    def _changed(self, keyring: Keyring, changed: KeyRecord) -> Keyring:
        """The keyring with one key changed, and one that seals if there is none any more."""
        now = self._clock.now()
        records = tuple(
            replace(changed, changed=now) if each.id == changed.id else each
            for each in keyring.records
        )
        data = [each for each in records if each.purpose is Purpose.DATA]
        if not any(each.state is KeyState.ACTIVE for each in data):
            epoch = max(each.epoch for each in data) + 1
            records = (*records, new_key(Purpose.DATA, epoch, now))
        return replace(keyring, records=records)

    def set_escrow(self, escrow: Recipient | None, sender: Secret | None = None) -> Keyring:
        """
        Wrap the keys for an escrow too, in place of the one before; None takes it away.

        ``sender`` is what shows its shares, if it has any, who wraps for them.
        """

        def change(keyring: Keyring) -> Keyring:
            records = [each for each in keyring.records if each.purpose is not Purpose.ESCROW]
            if sender is not None:
                epoch = _last_epoch(keyring, Purpose.ESCROW) + 1
                fresh = new_key(Purpose.ESCROW, epoch, self._clock.now())
                records.append(replace(fresh, secret=sender))
            return replace(keyring, records=tuple(records), recipients=())

        return self._change(change, extra=[escrow] if escrow else [])

    def _settle_or_withdraw(self, name: str) -> Keyring:
        try:
            return self.settle()
        except KeyUnusable:
            # The keys were destroyed meanwhile, and ours would be all that is left of them.
            self._stores[0].delete(name)
            raise

    def _change(
        self,
        change: Callable[[Keyring], Keyring],
        masters: Sequence[KeyStore] = (),
        extra: Sequence[Recipient] = (),
    ) -> Keyring:
        before = self.settle()
        changed = change(before)
        after = replace(changed, generation=before.generation + 1, written=self._clock.now())
        recipients = [*(masters or [self._master]), *self._second, *_escrows(changed), *extra]
        name = keyring_name(self._owner.repository, after.generation)
        body = seal_keyring(after, recipients, self._owner)
        try:
            self._stores[0].put(name, body)
        except ObjectExists as error:
            if self._stores[0].get(name) != body:  # else it is ours, whose first answer was lost
                raise AlreadyRunning("another change of the keys was quicker", _AGAIN) from error
        if masters:
            self._master = masters[0]
        settled = self._settle_or_withdraw(name)
        if settled.generation != after.generation:
            # Others made two changes meanwhile, and tidied up the generation that ours took.
            raise AlreadyRunning("other changes of the keys came at the same moment", _AGAIN)
        return settled


def _escrows(keyring: Keyring) -> list[Recipient]:
    secrets = (each.secret for each in keyring.records if each.purpose is Purpose.ESCROW)
    sender = next(secrets, None)
    return [found for row in keyring.recipients if (found := escrow_of(row, sender)) is not None]


def _prepared(keyring: Keyring, purpose: Purpose) -> KeyRecord | None:
    return next(
        (
            each
            for each in keyring.records
            if each.purpose is purpose and each.state is KeyState.PRE_ACTIVE
        ),
        None,
    )


def _last_epoch(keyring: Keyring, purpose: Purpose) -> int:
    return max((each.epoch for each in keyring.records if each.purpose is purpose), default=0)


def _newest(keyring: Keyring, purpose: Purpose) -> datetime:
    """Since when there is the key of that purpose that seals now, as `TenantKeys` chooses it."""
    sealing = [
        (record.epoch, record.since)
        for record in keyring.records
        if record.purpose is purpose and record.state is KeyState.ACTIVE
    ]
    return max(sealing, default=(0, _NEVER))[1]


def _chosen(keyring: Keyring, key: str) -> KeyRecord:
    fitting = [
        record
        for record in keyring.records
        if record.purpose is Purpose.DATA and (record.id == key or str(record.epoch) == key)
    ]
    if not fitting:
        epochs = sorted(each.epoch for each in keyring.records if each.purpose is Purpose.DATA)
        raise KeyUnusable(
            f"there is no data key {key!r}",
            f"Name one by its id or its epoch: {', '.join(map(str, epochs))}.",
        )
    return fitting[0]


def _compromised(keyring: Keyring, key: str) -> KeyRecord:
    chosen = _chosen(keyring, key)
    if chosen.state is not KeyState.COMPROMISED:
        raise KeyUnusable(
            f"key {chosen.id} is {chosen.state.value}, not compromised",
            "Say first that it is: 'kryonix keys ID state KEY compromised'.",
        )
    return chosen
