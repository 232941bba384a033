"""No change of a followed log is lost or kept twice, wherever the follower or its source stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from kryonix_backup.backup import follow as follow_module
from kryonix_backup.backup.follow import (
    LogReport,
    Pace,
    drain_log,
    follow_log,
    newest_restorable,
    open_log,
)
from kryonix_backup.errors import AlreadyRunning, LogBroken, SourceError
from kryonix_backup.model import ChainId, LogHeader, SourceName
from kryonix_backup.repository.log import LogBook
from kryonix_backup.repository.repository import Repository
from kryonix_backup.sources.postgres.following.stream import PostgresLog
from kryonix_backup.sources.postgres.preparation.preparing import prepare, renew_slot
from kryonix_backup.sources.postgres.server.address import Address, slot_name
from kryonix_backup.sources.source import LogPiece, LogStream
from kryonix_backup.testing.clock import NOON, FixedClock
from kryonix_backup.testing.postgres import PostgresServer
from kryonix_backup.testing.repositories import RecordingStore, new_repository, reopened
from tests.services.postgres import new_database
from tests.sources.postgres.log import changes

DB = SourceName("db")


# ---------------------------------------------------------------------- with a double


@dataclass
class MemoryLog:
    """A `LogSource` whose log is a list of transactions, each ending at its place in it."""

    written: list[bytes] = field(default_factory=list)
    confirmed: int = 0
    break_at: list[int] = field(default_factory=list)
    parts: int = 1
    opaque: str = ""
    renewed: list[bool] = field(default_factory=list)

    def new_chain(self, *, renew: bool) -> LogHeader:
        """It begins with what is written next."""
        self.renewed.append(renew)
        end = self.confirmed = len(self.written)
        return LogHeader(ChainId(""), 0, end, end, None, None, None, 0, 0, meta={"log": "m"})

    @contextmanager
    def follow(self, opening: LogHeader, last: LogHeader) -> Iterator[LogStream]:
        """After the last segment."""
        assert opening.chain == last.chain
        yield _MemoryStream(self, last)


class _MemoryStream:
    def __init__(self, log: MemoryLog, last: LogHeader) -> None:
        self._log, self._last = log, last

    def pieces(self, until: Callable[[], bool], every: float) -> Iterator[LogPiece]:
        """One transaction a segment."""
        assert every > 0
        log = self._log
        for end in range(self._last.end + 1, len(log.written) + 1):
            if end in log.break_at:
                log.break_at.remove(end)
                raise LogBroken(f"lost {end}")
            body = log.written[end - 1]
            for _ in range(log.parts - 1):
                yield LogPiece(body, None)
            at = NOON + timedelta(seconds=end)
            header = LogHeader(ChainId("?"), 99, end - 1, end, at, at, at, 1, 1, log.opaque)
            yield LogPiece(body, header)
        assert until()

    def confirm(self, end: int) -> None:
        """Remember it."""
        self._log.confirmed = end


def _kept(book: LogBook) -> list[tuple[LogHeader, bytes]]:
    """Every segment of every chain, in order."""
    found = []
    for chain, count in book.chains().items():
        for number in range(count):
            header, body = book.segment(chain, number)
            found.append((header, b"".join(bytes(piece) for piece in body)))
    return found


def _drained(repository: Repository, source: MemoryLog) -> LogReport:
    return drain_log(repository, DB, source, FixedClock(NOON + timedelta(seconds=60)))


def test_a_log_is_kept_and_gone_on_with() -> None:
    store, source = RecordingStore(), MemoryLog()
    _drained(new_repository(store), source)
    source.written += [b"one", b"two"]
    first = _drained(reopened(store), source)
    source.written += [b"three"]
    second = _drained(reopened(store), source)

    book = reopened(store).log(DB)
    assert [body for _, body in _kept(book)] == [b"", b"one", b"two", b"three"]
    assert len(book.chains()) == 1
    assert (first.segments, first.commits, first.changes, first.bytes_read) == (2, 2, 2, 6)
    assert second.restorable == NOON + timedelta(seconds=3)
    assert (second.age_s, second.needs_full, second.gap) == (57.0, False, None)
    assert source.confirmed == 3


def test_the_beginning_is_told_and_every_segment_once_it_is_durable() -> None:
    store, source = RecordingStore(), MemoryLog()
    repository = new_repository(store)
    open_log(repository.log(DB), source, FixedClock())
    source.written += [b"one", b"two"]
    told: list[tuple[int, int]] = []

    def tell(report: LogReport) -> None:
        told.append((report.segments, len(store.names("logs/"))))

    follow_log(repository, DB, source, FixedClock(), Pace(1.0, lambda: True), tell)

    assert told == [(0, 1), (1, 2), (2, 3)]


def test_a_part_that_was_lost_begins_a_new_chain_and_asks_for_a_full_backup() -> None:
    repository, source = new_repository(), MemoryLog()
    _drained(repository, source)
    source.written += [b"one", b"two", b"three"]
    source.break_at = [2]
    report = _drained(repository, source)
    source.written += [b"four"]
    again = _drained(repository, source)

    at = (NOON + timedelta(seconds=1)).isoformat()
    assert report.gap == {"gap_from": at, "reason": "lost 2"}
    assert report.needs_full
    assert report.to_plain()["gap"] == report.gap
    first, second = repository.log(DB).chains()
    assert report.chain == again.chain == second > first
    opening = repository.log(DB).header(second, 0)
    assert (opening.meta["gap_from"], opening.meta["reason"]) == (at, "lost 2")
    assert source.renewed == [False, True]
    assert [body for _, body in _kept(repository.log(DB))] == [b"", b"one", b"", b"four"]


@pytest.mark.parametrize("number", [0, 2])
def test_a_chain_whose_opening_or_end_is_damaged_is_given_up_for_a_new_one(number: int) -> None:
    store, source = RecordingStore(), MemoryLog()
    _drained(new_repository(store), source)
    source.written += [b"one", b"two"]
    _drained(reopened(store), source)
    (chain,) = reopened(store).log(DB).chains()
    store.objects[f"logs/db/{chain}/{number:08d}"] = b"rotten"
    source.written += [b"three"]

    report = _drained(reopened(store), source)
    source.written += [b"four"]
    again = _drained(reopened(store), source)

    assert report.gap is not None
    newest = NOON + timedelta(seconds=2 if number == 0 else 1)
    assert report.gap["gap_from"] == newest.isoformat()
    assert f"{number:08d} is cut short" in report.gap["reason"]
    assert report.needs_full
    assert (again.chain, again.commits, again.gap) == (report.chain, 1, None)
    assert report.chain > chain
    assert source.renewed == [False, True]


def test_a_chain_of_which_nothing_opens_says_that_all_is_lost() -> None:
    store, source = RecordingStore(), MemoryLog()
    _drained(new_repository(store), source)
    for name in store.names("logs/"):
        store.objects[name] = b""

    report = _drained(reopened(store), source)

    assert report.gap is not None
    assert report.gap["gap_from"] is None


def test_a_log_that_breaks_at_once_again_is_given_up() -> None:
    repository, source = new_repository(), MemoryLog()
    _drained(repository, source)
    source.written += [b"one"]
    source.break_at = [1]
    renewed = source.new_chain

    def new_chain(*, renew: bool) -> LogHeader:
        opening = renewed(renew=renew)
        source.written.append(b"more")
        source.break_at = [len(source.written)]
        return opening

    source.new_chain = new_chain  # type: ignore[method-assign]
    with pytest.raises(LogBroken, match="lost 2"):
        _drained(repository, source)


def test_what_cannot_be_replayed_asks_for_a_full_backup() -> None:
    repository, source = new_repository(), MemoryLog()
    _drained(repository, source)
    source.written += [b"one"]
    source.opaque = "it rewrote t"
    report = _drained(repository, source)

    assert report.needs_full
    assert report.to_plain()["broken"] == ["it rewrote t"]
    assert report.gap is None


@pytest.mark.parametrize("bytes_in_one", [1 << 20, 4])
def test_a_long_transaction_is_kept_as_chunks(
    bytes_in_one: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_module, "MOST_BODY_BYTES", bytes_in_one)
    store = RecordingStore()
    source = MemoryLog(parts=3 if bytes_in_one > 4 else 1)
    repository = new_repository(store)
    _drained(repository, source)
    source.written += [b"abcdefgh" * 1000]
    report = _drained(repository, source)

    expected = b"abcdefgh" * 1000 * source.parts
    assert _kept(reopened(store).log(DB))[1][1] == expected
    assert report.bytes_read == len(expected)
    kinds = [name.partition("/")[0] for name in store.puts]
    assert kinds[-3:] == ["packs", "index", "logs"]


def test_a_log_that_ends_in_the_middle_is_not_kept() -> None:
    repository, source = new_repository(), MemoryLog()
    _drained(repository, source)

    class Cut(_MemoryStream):
        def pieces(self, until: Callable[[], bool], every: float) -> Iterator[LogPiece]:
            yield LogPiece(b"half", None)

    @contextmanager
    def follow(opening: LogHeader, last: LogHeader) -> Iterator[LogStream]:
        yield Cut(source, last)

    source.follow = follow  # type: ignore[method-assign]
    with pytest.raises(SourceError, match="inside a transaction"):
        _drained(repository, source)
    assert len(_kept(repository.log(DB))) == 1


def test_of_two_followers_the_second_stops_without_confirming() -> None:
    repository, source = new_repository(), MemoryLog()
    _drained(repository, source)
    source.written += [b"one"]
    book = repository.log(DB)

    class Slow(MemoryLog):
        """One that the other overtakes between its look at the log and its first segment."""

        @contextmanager
        def follow(self, opening: LogHeader, last: LogHeader) -> Iterator[LogStream]:
            """After the other one wrote."""
            book.append(last._replace(number=1, end=1), b"theirs")
            yield _MemoryStream(self, last)

    slow = Slow(source.written)
    with pytest.raises(AlreadyRunning, match="another process follows"):
        _drained(repository, slow)
    assert slow.confirmed == 0
    assert [body for _, body in _kept(book)] == [b"", b"theirs"]


def test_chains_sort_as_they_began_though_a_clock_was_set_back() -> None:
    repository, source = new_repository(), MemoryLog()
    book = repository.log(DB)
    first = follow_module.begin_chain(book, source, FixedClock(NOON), {})
    second = follow_module.begin_chain(book, source, FixedClock(NOON - timedelta(days=1)), {})

    assert list(book.chains()) == [first.chain, second.chain]
    assert newest_restorable(book, second) is None


def test_a_clock_behind_the_servers_knows_no_age(caplog: pytest.LogCaptureFixture) -> None:
    repository, source = new_repository(), MemoryLog()
    _drained(repository, source)
    source.written += [b"one"]
    report = drain_log(repository, DB, source, FixedClock(NOON - timedelta(hours=1)))

    assert (report.restorable, report.age_s) == (NOON + timedelta(seconds=1), None)
    assert "clock is 3601 seconds behind that of db's server" in caplog.text


def test_a_servers_clock_that_was_set_back_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    twice = [[NOON.isoformat(), (NOON + timedelta(hours=1)).isoformat()]]

    class SetBack(MemoryLog):
        @contextmanager
        def follow(self, opening: LogHeader, last: LogHeader) -> Iterator[LogStream]:
            """Each segment says so."""
            yield SetBackStream(self, last)

    class SetBackStream(_MemoryStream):
        def pieces(self, until: Callable[[], bool], every: float) -> Iterator[LogPiece]:
            for piece in super().pieces(until, every):
                assert piece.header is not None
                yield LogPiece(piece.body, piece.header._replace(meta={"twice": twice}))

    repository, source = new_repository(), SetBack()
    _drained(repository, source)
    for word in (b"one", b"two"):
        source.written.append(word)
        _drained(repository, source)

    assert caplog.text.count("the clock of db's server was set back") == 1


def test_the_newest_restorable_moment_is_looked_for_backwards() -> None:
    repository, source = new_repository(), MemoryLog()
    book = repository.log(DB)
    opening, _ = open_log(book, source, FixedClock())
    book.append(opening._replace(number=1, restorable=NOON), b"")
    last = opening._replace(number=2)
    book.append(last, b"")

    assert newest_restorable(book, last) == NOON


# ---------------------------------------------------------------------- with a real server


class DatabaseLog:
    """A `LogSource` of a real database."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.address = Address.parse(server.url(database))
        self.log = PostgresLog(self.address)
        self._prepared = prepare(self.address, replica_identity_full=True)

    def new_chain(self, *, renew: bool) -> LogHeader:
        """With a new slot where the old one is of no use."""
        again = renew_slot(self.address) if renew else self._prepared
        return self.log.new_chain(again)

    def follow(self, opening: LogHeader, last: LogHeader) -> AbstractContextManager[LogStream]:
        """As the server gives it."""
        return self.log.follow(opening, last)


class Killed(Exception):
    """The follower is gone."""


class DyingStore(RecordingStore):
    """Kills the follower before or after its next segment is stored."""

    die = ""

    def put(self, name: str, body: bytes | bytearray | memoryview) -> None:
        """Write, unless it dies before."""
        if name.startswith("logs/") and self.die == "before":
            raise Killed
        super().put(name, body)
        if name.startswith("logs/") and self.die == "after":
            raise Killed


@pytest.mark.service
def test_wherever_the_follower_is_killed_nothing_is_lost_or_kept_twice(
    postgres: PostgresServer,
) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        connection.execute("create table t (a int primary key)")
        store, source = DyingStore(), DatabaseLog(postgres, database)
        repository, clock = new_repository(store), FixedClock()
        drain_log(repository, DB, source, clock)
        for number, die in enumerate(("", "before", "after", "before", "after", "")):
            connection.execute("insert into t values (%s)", (number,))
            store.die = die
            if die:
                with pytest.raises(Killed):
                    drain_log(reopened(store), DB, source, clock)
            else:
                drain_log(reopened(store), DB, source, clock)

        kept = _kept(reopened(store).log(DB))
        assert [row for _, body in kept for row in changes(body)] == [
            f"I t {number}" for number in range(6)
        ]
        headers = [header for header, _ in kept]
        assert len({header.chain for header in headers}) == 1
        assert [header.start for header in headers[1:]] == [header.end for header in headers[:-1]]
        assert not any(header.broken for header in headers)


@pytest.mark.service
def test_a_slot_that_was_dropped_begins_a_new_chain(postgres: PostgresServer) -> None:
    database = new_database(postgres)
    with postgres.connect(database) as connection:
        connection.execute("create table t (a int primary key)")
        source, repository = DatabaseLog(postgres, database), new_repository()
        before = drain_log(repository, DB, source, FixedClock())
        connection.execute("select pg_drop_replication_slot(%s)", (slot_name(database),))
        connection.execute("insert into t values (1)")
        report = drain_log(repository, DB, source, FixedClock())
        connection.execute("insert into t values (2)")
        drain_log(repository, DB, source, FixedClock())

    assert before.restorable is not None
    assert report.gap is not None
    assert report.gap["gap_from"] == before.restorable.isoformat()
    assert "is gone" in report.gap["reason"]
    assert report.needs_full
    rows = [row for _, body in _kept(repository.log(DB)) for row in changes(body)]
    assert rows == ["I t 2"]
