"""Damage to a log is found and named, with the moments that it costs; never wrong data."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest

from kryonix_backup.clock import SystemClock
from kryonix_backup.errors import Damaged, KryonixError, RepositoryError, StoreUnavailable
from kryonix_backup.maintenance.report import Damage, Level, VerifiedLog, VerifyReport
from kryonix_backup.model import LogHeader, TenantId
from kryonix_backup.repository.log_reach import find_start
from kryonix_backup.repository.repository import Repository
from kryonix_backup.restore.plan import RestoreRequest, plan_restore
from kryonix_backup.storage.store import ObjectInfo
from kryonix_backup.testing.faults import FaultyStore
from kryonix_backup.testing.repositories import RecordingStore, reopened
from tests.maintenance.conftest import verified
from tests.maintenance.logs import (
    BODY,
    CRM,
    DB,
    Logged,
    at,
    chain_of,
    framed,
    logged,
    name,
    row,
    transaction,
)

CHAIN = chain_of(0)
STEP = timedelta(microseconds=1)


@pytest.fixture(scope="module")
def whole() -> Logged:
    return logged()


@pytest.fixture(scope="module")
def theirs() -> Logged:
    """The same of another tenant."""
    return logged("globex")


def _db(report: VerifyReport) -> VerifiedLog:
    (found,) = [log for log in report.logs if log.restorable.source == DB]
    return found


def _ranges(report: VerifyReport) -> list[tuple[datetime, datetime]]:
    return [(each.start, each.end) for each in _db(report).restorable.ranges]


def _damage(report: VerifyReport) -> dict[str, Damage]:
    return {each.object: each for each in report.damage}


# ---------------------------------------------------------------------- sound


@pytest.mark.parametrize("level", list(Level))
def test_a_sound_log_is_ok_and_says_what_can_be_restored(whole: Logged, level: Level) -> None:
    report = verified(whole.again(), level)

    assert (report.status, report.damage, report.segments) == ("ok", (), 13)
    assert report.segments_read == {Level.STRUCTURE: 0, Level.SAMPLE: 2, Level.DATA: 13}[level]
    assert _ranges(report) == [(at(0), at(60))]
    assert (_db(report).segments, _db(report).remarks) == (7, ())
    assert not _db(report).restorable.needs_full
    assert [log.restorable.source for log in report.logs] == [CRM, DB]


def test_bodies_count_as_bytes_that_were_read(whole: Logged) -> None:
    structure = verified(whole.again(), Level.STRUCTURE).bytes_read
    packs = sum(len(whole.store.objects[pack]) for pack in whole.store.names("packs/"))

    assert structure == 0
    assert verified(whole.again()).bytes_read > packs + 10 * len(BODY)


def test_a_segment_that_comes_meanwhile_is_no_damage() -> None:
    made = logged()

    class Busy(RecordingStore):
        """After the logs were listed, a long segment is written."""

        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            found = list(super().list(prefix))
            if prefix == "logs/" and not self.puts:
                self.puts.append("once")
                Logged(self, reopened(self)).extend_long(CHAIN)
            return iter(found)

    busy = Busy()
    busy.objects.update(made.store.objects)

    assert verified(reopened(busy)).status == "ok"
    assert verified(reopened(busy)).segments == 14


def test_a_store_that_does_not_answer_is_no_damage(whole: Logged) -> None:
    faulty = FaultyStore(whole.store, get_range=[StoreUnavailable("gone")] * 60)

    with pytest.raises(StoreUnavailable):
        verified(reopened(faulty))


# ---------------------------------------------------------------------- holes


def test_a_missing_segment_is_told_with_what_it_costs(whole: Logged) -> None:
    store = whole.store.copy()
    del store.objects[name(CHAIN, 2)]

    report = verified(whole.again(store), Level.STRUCTURE)

    damage = _damage(report)[name(CHAIN, 2)]
    assert damage.reason == "is missing; 4 segments beyond it lead nowhere"
    assert damage.affects == (
        f"db: every moment after {at(10).isoformat()} and before the next full backup",
    )
    assert len(report.damage) == 1
    assert _ranges(report) == [(at(0), at(10))]
    assert _db(report).restorable.needs_full
    _check_plans(whole, store, report)


def test_several_missing_segments_are_told_once(whole: Logged) -> None:
    store = whole.store.copy()
    for number in (0, 3, 4):
        del store.objects[name(CHAIN, number)]

    damage = _damage(verified(whole.again(store), Level.STRUCTURE))

    assert damage[name(CHAIN, 0)].reason == "is missing; 4 segments beyond it lead nowhere"
    assert damage[name(CHAIN, 3)].reason == (
        "is missing, with 1 that follow it; 2 segments beyond it lead nowhere"
    )


def test_a_log_without_a_backup_leads_nowhere() -> None:
    made = Logged.new()
    made.extend(made.open_chain(), 2)

    report = verified(made.again())

    assert report.status == "ok"
    assert _db(report).restorable.ranges == ()
    (gap,) = _db(report).restorable.gaps
    assert gap.reason == "no snapshot leads into the log"


# ---------------------------------------------------------------------- what does not fit


def test_a_segment_that_does_not_begin_where_the_last_one_ended_is_told() -> None:
    made = Logged.new()
    chain = made.open_chain()
    made.back_up(0, 0)
    made.extend(chain, 1)
    made.extend(chain, 1, start=150)
    made.extend(chain, 1)

    report = verified(made.again(), Level.STRUCTURE)

    damage = _damage(report)[name(chain, 2)]
    assert damage.reason == "begins at 150, and the segment before it ends at 100"
    assert damage.affected == 1
    assert _ranges(report) == [(at(0), at(10))]
    with pytest.raises(Damaged, match="begins at 150"):
        plan_restore(made.again(), RestoreRequest(at=at(15)), SystemClock())


@pytest.mark.parametrize("number", [0, 2])
def test_a_segment_of_another_log_is_told(number: int) -> None:
    made = Logged.new()
    chain = made.open_chain(meta={"log": ""} if number == 0 else None)
    made.extend(chain, 1)
    made.extend(chain, 1, meta={"log": "7/9"} if number else {})

    (damage,) = verified(made.again(), Level.STRUCTURE).damage

    assert damage.object == name(chain, number)
    assert "of which log" in damage.reason or damage.reason == (
        "is of the log 7/9, and its chain of 7/8"
    )


def test_a_clock_that_was_set_back_is_a_remark_and_no_damage() -> None:
    made = Logged.new()
    chain = made.open_chain()
    made.back_up(0, 0)
    made.extend(chain, 2)
    made.extend(chain, 1, restorable=at(12))

    report = verified(made.again())

    assert report.status == "ok"
    (remark,) = _db(report).remarks
    assert remark.startswith(f"{name(chain, 3)} goes back from {at(20).isoformat()}")
    assert _ranges(report) == [(at(0), at(20))]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (transaction(row()), "before it says what it is"),
        (BODY + transaction(), "holds 3 commits and 3 changes, and its head says 2 and 3"),
        (BODY[: len(BODY) - 3], "cut short"),
        (BODY[:-30], "ends inside a transaction"),
        (framed(b"Z"), "unknown kind"),
        (b"", "holds 0 commits and 0 changes"),
    ],
)
def test_a_body_that_a_replay_would_stumble_over_is_told_at_the_deepest_level(
    body: bytes, reason: str
) -> None:
    made = Logged.new()
    chain = made.open_chain()
    made.back_up(0, 0)
    made.extend(chain, 1)
    header = LogHeader(chain, 2, 100, 200, at(11), at(20), at(20), 2, 3, meta={})
    made.repository.log(DB).append(header, body)

    (damage,) = verified(made.again()).damage

    assert verified(made.again(), Level.STRUCTURE).status == "ok"
    assert damage.object == name(chain, 2)
    assert reason in damage.reason
    assert damage.affects[0].startswith(f"db: every moment after {at(10).isoformat()}")


def test_a_lost_chunk_of_a_long_body_is_found_without_reading(whole: Logged) -> None:
    store = whole.store.copy()
    _, chunks = whole.repository.log(DB).named(CHAIN, 6)
    found = whole.again().load_index().find(chunks[0])
    assert found is not None
    pack = f"packs/{found.pack.id[:2]}/{found.pack.id}"
    del store.objects[pack]

    report = verified(whole.again(store), Level.STRUCTURE)

    damage = _damage(report)
    assert name(CHAIN, 6) in damage[pack].affects
    assert damage[name(CHAIN, 6)].reason == f"needs {pack}, which is damaged"
    assert damage[name(CHAIN, 6)].affected == 1
    assert _ranges(report)[-1][1] == at(50)


# ---------------------------------------------------------------------- each object


HURT: dict[str, Callable[[bytes], bytes]] = {
    "changed": lambda body: body[:-20] + bytes([body[-20] ^ 1]) + body[-19:],
    "head": lambda body: body[:90] + bytes([body[90] ^ 1]) + body[91:],
    "cut": lambda body: body[: len(body) // 2],
    "empty": lambda _body: b"",
    "longer": lambda body: body + b"\0",
    "doubled": lambda body: body + body,
}


@pytest.mark.parametrize("how", ["removed", *HURT])
def test_every_hurt_segment_is_named_and_what_is_said_to_be_restorable_is(
    whole: Logged, how: str
) -> None:
    for number in range(7):
        hurt = name(CHAIN, number)
        store = whole.store.copy()
        body = store.objects.pop(hurt)
        if how != "removed":
            store.objects[hurt] = HURT[how](body)

        report = verified(whole.again(store))

        if how == "removed" and number == 6:  # nothing says how many there should be
            assert report.status == "ok"
        else:
            assert list(_damage(report)) == [hurt]
            assert report.tenant == "acme"
        assert ("every moment" in "".join(_damage(report).get(hurt, _NONE).affects)) == (
            number > 0 or how not in ("changed", "longer", "doubled")
        ) or report.status == "ok"
        _check_plans(whole, store, report)


_NONE = Damage("", "", (), 0)


def _check_plans(whole: Logged, store: RecordingStore, report: VerifyReport) -> None:
    """Every moment that is said to be restorable can be, and none besides."""
    repository = whole.again(store)
    moments = {at(seconds) for seconds in range(0, 65, 4)}
    for start, end in _ranges(report):
        moments |= {start, end, end + STEP}
    for moment in sorted(moments):
        said = _db(report).restorable.holds(moment)
        assert said == _can_be_read(repository, moment), f"{moment} {said}"


def _can_be_read(repository: Repository, moment: datetime) -> bool:
    try:
        request = RestoreRequest(at=moment, sources=("db",))
        plan = plan_restore(repository, request, SystemClock())
        replayed = plan.steps[0].log
        assert replayed is not None
        for number in range(replayed.first, replayed.last + 1):
            for _ in repository.log(DB).segment(replayed.chain, number)[1]:
                pass
    except KryonixError:
        return False
    return True


# ---------------------------------------------------------------------- every byte


def test_every_flipped_bit_and_every_cut_of_a_segment_is_told(whole: Logged) -> None:
    """One bit of each byte; what can still be read of the log is never another body."""
    chance = random.Random(7)
    hurt = name(CHAIN, 3, CRM)
    body = whole.store.objects[hurt]
    bare = _only_logs_of_crm(whole)
    for where in range(len(body)):
        changed = bytearray(body)
        changed[where] ^= 1 << chance.randrange(8)
        _is_told(whole, bare, hurt, bytes(changed))
        if where % 4 == 0:
            _is_told(whole, bare, hurt, body[:where])


def _only_logs_of_crm(whole: Logged) -> RecordingStore:
    """Less to look at for each byte."""
    store = RecordingStore()
    for key, body in whole.store.objects.items():
        if not key.startswith(("packs/", "index/", "snapshots/", "logs/db/")):
            store.objects[key] = body
    return store


def _is_told(whole: Logged, store: RecordingStore, hurt: str, body: bytes) -> None:
    store.objects[hurt] = body
    repository = whole.again(store)

    report = verified(repository)

    assert [each.object for each in report.damage] == [hurt]
    try:
        read = b"".join(bytes(piece) for piece in repository.log(CRM).segment(CHAIN, 3)[1])
    except RepositoryError:
        return
    raise AssertionError(f"read {len(read)} bytes of a segment that was changed")


def test_no_segment_can_stand_for_another_one(whole: Logged, theirs: Logged) -> None:
    """Neither of this chain, nor of another source, nor of another tenant; nor a pack or a key."""
    tried = 0
    for target in (name(CHAIN, 2), name(CHAIN, 3), name(CHAIN, 1, CRM)):
        for made in (whole, theirs):
            for donor in made.store.names():
                if (made, donor) == (whole, target):
                    continue
                store = whole.store.copy()
                store.objects[target] = made.store.objects[donor]
                report = verified(whole.again(store))
                assert list(_damage(report)) == [target]
                tried += 1
    assert tried > 60


def test_a_segment_under_a_name_of_its_own_is_told_or_leads_nowhere(whole: Logged) -> None:
    later, body = chain_of(99), whole.store.objects[name(CHAIN, 0)]
    for new in (name(later, 0), name(CHAIN, 7), f"logs/other/{CHAIN}/00000000"):
        store = whole.store.copy()
        store.objects[new] = body

        assert new in _damage(verified(whole.again(store)))
    for stray in (f"logs/db/{CHAIN}/3", "logs/db/x/00000000", f"logs/{CHAIN}", "logs/a/b/c/d"):
        store = whole.store.copy()
        store.objects[stray] = body

        assert verified(whole.again(store)).status == "ok"


def test_a_repository_of_another_tenant_does_not_open_at_all(theirs: Logged) -> None:
    with pytest.raises(KryonixError):
        reopened(theirs.store, TenantId("acme"))


def test_a_damaged_backup_leads_nowhere(whole: Logged) -> None:
    snapshot = [each for each in whole.again().snapshots() if DB in each.sources][-1]
    store = whole.store.copy()
    (part,) = snapshot.sources[DB].parts
    found = whole.again().load_index().find(part.root.chunk)
    assert found is not None
    del store.objects[f"packs/{found.pack.id[:2]}/{found.pack.id}"]

    report = verified(whole.again(store), Level.STRUCTURE)

    assert _ranges(report) == [(at(0), at(25) - STEP)]
    assert _db(report).restorable.gaps[-1].reason == f"snapshot {snapshot.id} is damaged"
    assert find_start(whole.repository.log(DB), snapshot.sources[DB].position) is not None
