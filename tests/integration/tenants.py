"""
Whether tenants whose databases stand side by side in one cluster share a byte of their backups.

Each has words that only it knows, wherever a database can hold some. Everything that its repository
holds is opened with its own key and searched: whatever of another tenant had come into it would be
there.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from kryonix_backup.backup.follow import LogReport
from kryonix_backup.crypto.seal import Kind
from kryonix_backup.model import Blob, ChainId, SourceName, TenantId, Tier
from kryonix_backup.repository import layout
from kryonix_backup.sdk.client import Client
from kryonix_backup.settings import (
    PRIMARY,
    RegionSettings,
    RootKey,
    Secret,
    SourceSettings,
    TenantSettings,
)
from kryonix_backup.testing.postgres import PostgresServer, start_postgres
from tests.sources.postgres.engine import restored

DB = SourceName("db")
# Where a tenant's word can be before the full backup, and what only the log then holds.
SAVED = ("row", "bytes", "object", "table", "body", "role", "comment", "setting", "view")
LOGGED = ("inserted", "before", "statement", "message", "column")
_WORD = re.compile(rf"word-of-(\d{{2}})-({'|'.join((*SAVED, *LOGGED))})".encode())
_SCHEMA = """
create table kept (id int primary key, note text, secret bytea);
create table loose (note text);
create table many (number int, filling text);
create table "word-of-{n}-table" (id int primary key);
create view seen as select 'word-of-{n}-view'::text as word from kept;
create function told() returns text language sql as 'select ''word-of-{n}-body''';
insert into kept values (1, 'word-of-{n}-row', convert_to('word-of-{n}-bytes', 'UTF8'));
insert into loose values ('word-of-{n}-before');
select lo_from_bytea(0, convert_to('word-of-{n}-object', 'UTF8'));
create role "word-of-{n}-role";
grant select on kept to "word-of-{n}-role";
comment on database "{database}" is 'word-of-{n}-comment';
alter database "{database}" set application_name = 'word-of-{n}-setting';
"""
_LATER = """
insert into kept values (2, 'word-of-{n}-inserted', null);
update loose set note = 'word-of-{n}-inserted again';
comment on table kept is 'word-of-{n}-statement';
alter table kept add column more text default 'word-of-{n}-column';
select pg_logical_emit_message(true, 'theirs', 'word-of-{n}-message');
"""
Result = TypeVar("Result")

_KINDS = {
    layout.SNAPSHOTS: Kind.SNAPSHOT,
    layout.INDEX: Kind.INDEX,
    layout.RESTORES: Kind.JOURNAL,
}


class Neighbour:
    """One of several tenants: its database, its key, its repository."""

    def __init__(self, server: PostgresServer, work: Path, number: int) -> None:
        self.number = f"{number:02}"
        self.database = f"neighbour_{self.number}"
        self._server = server
        with server.connect() as connection:
            connection.execute(f'create database "{self.database}"')
        self._run(_SCHEMA)
        tenant = TenantId(f"neighbour-{self.number}")
        settings = TenantSettings(
            tenant,
            Tier("standard"),
            (RegionSettings(PRIMARY, f"file://{work / tenant}"),),
            (SourceSettings(DB, server.url(self.database)),),
        )
        key = f"the key of {tenant} alone, of 32 bytes or more"
        self.client = Client.onboard(settings, RootKey(key_file=Secret(key.encode())))

    def back_up(self) -> None:
        """A log from here on, and a full backup."""
        self.client.prepare_source(DB, consent=True)
        self.drain()
        self.client.backup()

    def drain(self) -> LogReport:
        """Keep what is in its log by now."""
        return self.client.back_up_logs()[DB]

    def write(self) -> None:
        """What only the log holds."""
        self._run(_LATER)

    def write_many(self, rows: int) -> None:
        """So many changes more."""
        self._run(f"insert into many select g, repeat('x', 50) from generate_series(1, {rows}) g")

    def rows(self, database: str = "") -> list[tuple[object, ...]]:
        """What is in its tables, or in those of a database that was restored."""
        with self._server.connect(database or self.database) as connection:
            return [
                row
                for query in (
                    "select id, note, more from kept order by 1",
                    "select note from loose",
                    "select convert_from(lo_get(oid), 'UTF8') from pg_largeobject_metadata",
                    "select told(), obj_description('kept'::regclass)",
                )
                for row in connection.execute(query).fetchall()
            ]

    def opened(self) -> Iterator[tuple[str, Blob]]:
        """Every object of the repository with what is in it, in the clear."""
        repository = self.client.repository
        opened = repository._open
        packs, reader, book = set(), repository.reader(), repository.audit()
        for chunk, found in repository.load_index():
            packs.add(layout.pack_name(found.pack.id))
            yield f"chunk {chunk.hex()}", reader.read(chunk)
        for name in [info.name for info in repository.store.list("")]:
            kind = next((kind for start, kind in _KINDS.items() if name.startswith(start)), None)
            if kind is not None:
                yield name, opened(kind, name)
            elif name.startswith(layout.AUDIT):
                yield name, book.content(name, repository.store.get(name))
            elif name.startswith(layout.LOGS):
                yield from self._segment(name)
            elif name.startswith((layout.KEYS, layout.FORMAT)):
                yield name, repository.store.get(name)
            else:
                assert name in packs, f"{name} is not looked into"

    def _segment(self, name: str) -> Iterator[tuple[str, Blob]]:
        _, source, chain, number = name.split("/")
        book = self.client.repository.log(SourceName(source))
        header, body = book.segment(ChainId(chain), int(number))
        yield name, json.dumps([header._asdict(), dict(header.meta)], default=str).encode()
        yield name, b"".join(bytes(piece) for piece in body)

    def sealed(self) -> Iterator[tuple[str, Blob]]:
        """Every object as it is stored."""
        store = self.client.repository.store
        for info in list(store.list("")):
            yield info.name, store.get(info.name)

    def _run(self, script: str) -> None:
        with self._server.connect(self.database) as connection:
            for statement in script.format(n=self.number, database=self.database).split(";\n"):
                if statement.strip():
                    connection.execute(statement.encode())


def words_in(objects: Iterator[tuple[str, Blob]]) -> set[tuple[str, str]]:
    """Whose words are in there, and which; in bytes as PostgreSQL writes them too."""
    found = set()
    for _, body in objects:
        raw = bytes(body)
        for text in (raw, *map(_unhexed, re.findall(rb"\\\\?x((?:[0-9a-f]{2})+)", raw))):
            found |= {(n.decode(), what.decode()) for n, what in _WORD.findall(text)}
    return found


def _unhexed(digits: bytes) -> bytes:
    return bytes.fromhex(digits.decode())


def at_once(
    neighbours: Sequence[Neighbour], do: Callable[[Neighbour], Result], threads: int
) -> list[Result]:
    """What each makes of it, so many at once."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(do, neighbours))


class Drains(NamedTuple):
    """So many changes out of all logs, fetched by so many threads in so many seconds."""

    threads: int
    changes: int
    seconds: float


def side_by_side(
    work: Path, version: int, many: int, restores: int, rows: int = 0
) -> Iterator[Drains]:
    """
    Back up, fetch the logs of all at once, search everything, restore some of them.

    With ``rows``, each has so many changes to fetch, once at once and once one by one.
    """
    with start_postgres(version) as server:
        neighbours = [Neighbour(server, work, number) for number in range(many)]
        at_once(neighbours, Neighbour.back_up, 4)
        at_once(neighbours, Neighbour.write, 4)
        at = datetime.now(UTC)
        for threads in (many, 1) if rows else (many,):
            at_once(neighbours, lambda each: each.write_many(rows), 4)
            yield _timed(neighbours, threads)
        _search(neighbours)
        for each in neighbours[:: many // restores]:
            then = f"{each.database}_then"
            restored(each.client, server.url(then), at=at)
            assert each.rows(then) == each.rows()


def _timed(neighbours: Sequence[Neighbour], threads: int) -> Drains:
    started = time.monotonic()
    reports = at_once(neighbours, Neighbour.drain, threads)
    took = time.monotonic() - started
    assert all(report.gap is None and not report.broken for report in reports)
    assert len({report.chain for report in reports}) == len(neighbours)
    return Drains(threads, sum(report.changes for report in reports), took)


def _search(neighbours: Sequence[Neighbour]) -> None:
    for each in neighbours:
        expected = {(each.number, what) for what in (*SAVED, *LOGGED)}
        assert words_in(each.opened()) == expected
        assert words_in(each.sealed()) == set()
