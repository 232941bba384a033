"""
Clients that do to a database everything at once that its log has to follow.

pgbench, changes of rows and of the schema, tables that are emptied, transactions prepared by one
session and ended by another, savepoints, long values that stay or change, tables without a key,
transactions of many rows, large objects, and bursts of so many commits that some share a
microsecond.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime

import psycopg

from kryonix_backup.testing.postgres import PostgresServer

SCHEMA = """
create table keyed (id int primary key, n int, wide text);
alter table keyed alter wide set storage external;
create table loose (a int, b text);
create table scroll (a int, doc text);
alter table scroll alter doc set storage external;
create table referring (id serial primary key, at timestamptz default clock_timestamp());
create table many (g int primary key, x int);
create table crowd (g int, x text);
create table instant (of xid default pg_current_xact_id()::xid);
insert into keyed select g, 0, repeat(md5(g::text), 100) from generate_series(1, 2000) g;
insert into loose select g % 7, 'b' || g % 3 from generate_series(1, 2000) g;
insert into scroll select g % 20, repeat(md5((g % 20)::text), 100) from generate_series(1, 60) g;
"""
# How often, and what.
_TRANSACTIONS = (
    (30, "update keyed set n = n + 1 where id = {one}"),
    (10, "update keyed set id = {other} where id = {one}"),
    (10, "delete from keyed where id = {one}"),
    (20, ("insert into keyed values ({one}, 1, repeat('w', {other})) on conflict (id)"
         " do update set wide = excluded.wide")),
    (10, "update loose set b = b || '{seven}' where a = {seven} and length(b) < {nine}"),
    (10, "insert into loose select {seven}, 'b' from generate_series(1, 3)"),
    (5, "delete from loose where ctid in (select ctid from loose limit {nine})"),
    (20, "insert into referring default values"),
    (5, ("begin; delete from keyed where id < {nine}; savepoint s; delete from keyed where id <"
        " {other}; rollback to s; insert into loose values ({seven}, null); {end}")),
    (4, ("begin; savepoint a; insert into loose values ({one}, 'a'); savepoint b; update keyed set"
        " n = -n where id % 50 = {nine}; release b; savepoint c; delete from loose where a ="
        " {seven}; rollback to c; release a; insert into loose values ({one}, 'z'); {end}")),
    (3, ("do $$ begin insert into loose values ({one}, 'kept'); begin insert into keyed select id,"
        " 0 from keyed limit 1; exception when unique_violation then insert into loose values"
        " ({one}, 'caught'); end; end $$")),
    (5, "update scroll set a = a + 1 where a = {nine}"),
    (3, "update scroll set doc = repeat('{one}', {other}) where a = {seven}"),
    (2, "insert into scroll select {seven}, doc from scroll limit 2"),
    (2, "delete from scroll where ctid in (select ctid from scroll limit 2)"),
    (3, ("begin; insert into loose values (99, 'two phases {one}'); prepare transaction 'of {me}';"
        " commit prepared 'of {me}'")),
)  # fmt: skip
# They lock whole tables, which a backup that reads them would not bear.
_ROUGH = (
    (2, "create table if not exists made_{me} (id int primary key, x text)"),
    (6, "insert into made_{me} values ({one}, 'x') on conflict do nothing"),
    (2, "alter table made_{me} add column c_{one} int default {other}"),
    (1, "alter table made_{me} rename x to y"),
    (1, "alter table made_{me} add check (id >= 0)"),
    (1, "create index on made_{me} (id, (id + {one}))"),
    (1, "drop table if exists made_{me}"),
    (1, "begin; truncate loose; insert into loose values (1, 'anew'); {end}"),
    (1, ("begin; delete from scroll; truncate scroll, loose; insert into scroll values (7, 'x');"
        " {end}")),
    (1, "truncate referring restart identity"),
    (1, "create table copied_{me} as select * from keyed where id < {one}"),
    (1, "drop table copied_{me}"),
    (1, ("begin; create schema apart_{me}; create table apart_{me}.t (i serial primary key,"
        " s text); insert into apart_{me}.t (s) select 'new' from generate_series(1, {nine});"
        " {end}")),
    (2, "update apart_{me}.t set s = s || '{seven}'"),
    (1, "drop schema apart_{me} cascade"),
    (1, "insert into loose select g, 'many' from generate_series(1, {other}) g"),
)  # fmt: skip
_LARGE_OBJECTS = (
    (6, "select lo_from_bytea(0, convert_to(repeat('{one} ', {other}), 'UTF8'))"),
    (6, "select lo_put({which}, {other}, 'put {one}')"),
    (2, "select lo_unlink({which})"),
    (1, "begin; select lo_from_bytea(0, 'never'); rollback"),
    (1, "alter large object {which} owner to pg_database_owner"),
    (1, "grant select on large object {which} to public"),
)
# Transactions of so many rows; the first makes them, the others are taken in any order.
_MANY = (
    "insert into many select g, 0 from generate_series(1, {many}) g",
    "update many set x = x + 1",
    "begin; delete from many where g % 3 = 0; savepoint s; delete from many; rollback to s; commit",
    "begin; insert into crowd select g % 1000, 'c' from generate_series(1, {many}) g; rollback",
    (
        "begin; truncate crowd; insert into crowd select g % 1000, 'c' from"
        " generate_series(1, {many}) g; commit"
    ),
)
_COMMITS = "select pg_xact_commit_timestamp(of), count(*) from instant group by 1 order by 1"
_LOADERS = 4
_MOST_IDS = 3000
_BURST = ("-c", "8", "-j", "2", "-t", "250")
_BURSTS_EVERY_S = 2.0
_PREPARED_S = 0.5  # at most so long, between the two phases

Connection = psycopg.Connection[tuple[object, ...]]


class Load:
    """It lasts as long as its context."""

    def __init__(self, server: PostgresServer, database: str, seed: int, many: int) -> None:
        self._server = server
        self._database = database
        self._seed = seed
        self._many = many
        self._over = threading.Event()
        self._everything = threading.Event()
        self._objects = threading.Event()
        self._changing = threading.Lock()
        self._rough = threading.Semaphore(_LOADERS)
        self._asked = threading.Semaphore(0)
        self._pgbench: subprocess.Popen[bytes] | None = None
        self._threads = [
            threading.Thread(target=self._repeat, args=(f"loader {n}", self._one_of_all))
            for n in range(_LOADERS)
        ]
        for name, once in (
            ("two phases", self._two_phases), ("objects", self._object), ("burst", self._burst),
            ("many", self._many_rows),
        ):  # fmt: skip
            self._threads.append(threading.Thread(target=self._repeat, args=(name, once)))
        self.done = self.large = 0

    def __enter__(self) -> Load:
        words = ["-n", "-c", "2", "-T", "86400", "-R", "100", self._database]
        self._pgbench = self._start("pgbench", *words)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert self._pgbench is not None
        assert self._pgbench.poll() is None, "pgbench ended by itself"
        self._pgbench.kill()
        self._pgbench.wait()
        with self._server.connect(self._database) as connection:
            query = "select gid from pg_prepared_xacts where database = current_database()"
            for row in connection.execute(query).fetchall():
                connection.execute(f"rollback prepared '{row[0]}'".encode())

    # ------------------------------------------------------------------ what is told to it

    def do_everything(self) -> None:
        """From now on tables are emptied, and the schema is changed, too."""
        self._everything.set()

    def change_objects(self) -> None:
        """From now on there are large objects."""
        self._objects.set()

    @contextmanager
    def calm(self) -> Iterator[None]:
        """No whole table is locked meanwhile."""
        with ExitStack() as held:
            for _ in range(_LOADERS):
                held.enter_context(self._rough)
            yield

    @contextmanager
    def objects_held(self) -> Iterator[None]:
        """No large object is changed meanwhile."""
        with self._changing:
            yield

    def change_many(self) -> None:
        """One transaction of very many rows begins soon; the first one makes them."""
        self._asked.release()

    # ------------------------------------------------------------------ what it does

    def _repeat(self, name: str, once: Callable[[Connection, random.Random, int], None]) -> None:
        chance = random.Random(f"{self._seed} {name}")
        number = int(name.rpartition(" ")[2]) if name.startswith("loader") else 0
        with self._server.connect(self._database) as connection:
            while not self._over.is_set():
                try:
                    once(connection, chance, number)
                except psycopg.Error:  # two of them got into each other's way
                    connection.rollback()
                else:
                    self.done += 1

    def _one_of_all(self, connection: Connection, chance: random.Random, number: int) -> None:
        rough = sum(weight for weight, _ in _ROUGH) / sum(w for w, _ in (*_TRANSACTIONS, *_ROUGH))
        if (
            self._everything.is_set()
            and chance.random() < rough
            and self._rough.acquire(blocking=False)
        ):
            try:
                _run(connection, chance, _ROUGH, {"me": number})
            finally:
                self._rough.release()
        else:
            _run(connection, chance, _TRANSACTIONS, {"me": number})

    def _two_phases(self, connection: Connection, chance: random.Random, number: int) -> None:
        """Prepared by one session, ended by another one, some time later and now and then never."""
        gid, one = f"later {chance.random()}", chance.randrange(2000)
        with self._server.connect(self._database) as other:
            for statement in (
                "begin", f"insert into loose values (98, '{gid}')",
                f"update keyed set n = 98 where id between {one} and {one + 20}",
                "savepoint s", "insert into scroll values (98, repeat('x', 5000))",
                chance.choice(["rollback to s", "release s"]), f"prepare transaction '{gid}'",
            ):  # fmt: skip
                other.execute(statement.encode())
        time.sleep(chance.random() * _PREPARED_S)
        end = chance.choice(["commit", "commit", "rollback"])
        connection.execute(f"{end} prepared '{gid}'".encode())

    def _object(self, connection: Connection, chance: random.Random, number: int) -> None:
        if not self._objects.is_set():
            time.sleep(0.05)
            return
        with self._changing:
            rows = connection.execute("select oid::int8 from pg_largeobject_metadata").fetchall()
            which = chance.choice([row[0] for row in rows]) if rows else 0
            _run(connection, chance, _LARGE_OBJECTS, {"which": which})
        time.sleep(chance.random() * 0.02)

    def _burst(self, connection: Connection, chance: random.Random, number: int) -> None:
        """So many commits at once that some of them have the same time, to the microsecond."""
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write("insert into instant default values;\n")
            script.flush()
            process = self._start("pgbench", "-n", "-f", script.name, *_BURST, self._database)
            assert process.wait() == 0, "a burst of pgbench failed"
        self._over.wait(chance.random() * 2 * _BURSTS_EVERY_S)

    def _many_rows(self, connection: Connection, chance: random.Random, number: int) -> None:
        if not self._asked.acquire(timeout=0.1):
            return
        which = chance.choice(_MANY[1:]) if self.large else _MANY[0]
        with self._rough:
            for statement in which.format(many=self._many).split("; "):
                connection.execute(statement.encode())
        self.large += 1

    def _start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        where = ["-h", "127.0.0.1", "-p", str(self._server.port), "-U", "postgres"]
        return subprocess.Popen(
            [self._server.programs / program, *where, *words],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "PGOPTIONS": "-c synchronous_commit=off"},
        )  # fmt: skip


def _run(
    connection: Connection,
    chance: random.Random,
    kinds: tuple[tuple[int, str], ...],
    more: dict[str, object],
) -> None:
    one, other = chance.randrange(_MOST_IDS), chance.randrange(_MOST_IDS)
    values = {
        "one": one, "other": other, "seven": one % 7, "nine": one % 9,
        "end": chance.choice(["commit", "rollback"]), **more,
    }  # fmt: skip
    (chosen,) = chance.choices(kinds, [weight for weight, _ in kinds])
    parts = [chosen[1]] if chosen[1].startswith("do $$") else chosen[1].split("; ")
    for statement in parts:
        connection.execute(statement.format(**values).encode())


def commit_times(server: PostgresServer, database: str) -> list[tuple[datetime, int]]:
    """The times of commits out of the bursts that are there, and how many share each."""
    found = []
    with server.connect(database) as connection:
        for time_, count in connection.execute(_COMMITS).fetchall():
            assert isinstance(time_, datetime)
            found.append((time_, int(str(count))))
    return found
