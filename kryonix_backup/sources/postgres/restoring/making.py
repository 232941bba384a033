"""A database made anew: its roles, itself, and what is set for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from kryonix_backup.model import Problem
from kryonix_backup.sources.postgres.dumping import paths
from kryonix_backup.sources.postgres.server.session import Connection

_FLAGS = (
    ("superuser", "superuser"), ("inherit", "inherit"), ("createrole", "createrole"),
    ("createdb", "createdb"), ("login", "login"), ("replication", "replication"),
    ("bypassrls", "bypassrls"),
)  # fmt: skip
_BEYOND = ("superuser", "createrole", "replication")
_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}


def described(small: Mapping[bytes, bytes]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """
    The roles and the database itself, out of what a snapshot says of them.

    An incremental one says anew what no log holds. Owner and rights stay those of the rows' time:
    the statements in the log were made under them. Roles and views of either time may be needed.
    """
    roles, database = json.loads(small[paths.ROLES]), json.loads(small[paths.DATABASE])
    if paths.NOW not in small:
        return roles, database
    now = json.loads(small[paths.NOW])
    by_name = {role["name"]: role for role in [*roles, *now["roles"]]}
    anew = {name: now["database"][name] for name in ("settings", "comment", "connection_limit")}
    views = [*database["materialized"], *now["database"]["materialized"]]
    return list(by_name.values()), {**database, **anew, "materialized": views}


def make_roles(connection: Connection, roles: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """
    Make the roles that are missing; those that are there stay as they are.

    None gets what reaches beyond its database: other tenants may be on that server. That is told,
    with the statements that give it.
    """
    there = {row[0] for row in connection.execute("select rolname from pg_roles")}
    missing = {role["name"]: role for role in roles if role["name"] not in there}
    problems: list[Problem] = []
    withheld: list[tuple[str, sql.Composed]] = []
    for name, role in missing.items():
        try:
            connection.execute(_create_role(role))
        except psycopg.Error as error:
            problems.append(_problem(f"role {name}", error))
        beyond = [word for word in _BEYOND if role[word]]
        if beyond:
            words = sql.SQL(" ".join(beyond))
            withheld.append((name, sql.SQL("alter role {} {}").format(sql.Identifier(name), words)))
    for name, role in missing.items():
        for group in role["member_of"]:
            grant = sql.SQL("grant {} to {}").format(sql.Identifier(group), sql.Identifier(name))
            if group in missing:
                problems += run_all(connection, [grant], f"role {name}")
            else:
                withheld.append((name, grant))
    return problems + [
        Problem(
            f"role {name}",
            "was made without a right that may reach beyond the database; where it shall have it,"
            f" run: {statement.as_string(connection)}",
        )
        for name, statement in withheld
    ]


def _create_role(role: Mapping[str, Any]) -> sql.Composed:
    words = [word if role[field] and word not in _BEYOND else f"no{word}" for field, word in _FLAGS]
    statement = sql.SQL("create role {} with {} connection limit {}").format(
        sql.Identifier(role["name"]),
        sql.SQL(" ".join(words)),
        sql.Literal(role["connection_limit"]),
    )
    if role.get("password"):
        statement += sql.SQL(" password {}").format(sql.Literal(role["password"]))
    if role.get("valid_until"):
        statement += sql.SQL(" valid until {}").format(sql.Literal(role["valid_until"]))
    return statement


def make_database(connection: Connection, name: str, like: Mapping[str, Any]) -> None:
    """
    An empty database with the encoding and locale of the one that was saved.

    Nobody but superusers is let in: what others put there would run with our rights.
    """
    version = connection.info.server_version
    statement = sql.SQL(
        "create database {} template template0 encoding {} lc_collate {} lc_ctype {}"
        " connection limit 0"
    ).format(
        sql.Identifier(name),
        sql.Literal(like["encoding"]),
        sql.Literal(like["collate"]),
        sql.Literal(like["ctype"]),
    )
    provider = _PROVIDERS.get(like["provider"], "libc")
    if version >= 150_000:
        statement += sql.SQL(" locale_provider " + provider)
        if provider == "icu":
            statement += sql.SQL(" icu_locale {}").format(sql.Literal(like["locale"]))
        if provider == "builtin":
            statement += sql.SQL(" builtin_locale {}").format(sql.Literal(like["locale"]))
    connection.execute(statement)


def give_rights(connection: Connection, name: str, like: Mapping[str, Any]) -> list[Problem]:
    """
    Give the database its owner and rights; what is refused is told.

    That comes before its log is replayed, whose statements need them.
    """
    database = sql.Identifier(name)
    owner = sql.Identifier(like["owner"])
    statements = [sql.SQL("alter database {} owner to {}").format(database, owner)]
    if like["acl"] is not None:
        statements.append(sql.SQL("revoke all on database {} from public").format(database))
        statements += [
            sql.SQL("grant {} on database {} to {}{}").format(
                sql.SQL(right), database, role, sql.SQL(" with grant option" if option else "")
            )
            for role, right, option in rights_of(like["acl"], _DATABASE_RIGHTS)
        ]
    return run_all(connection, statements, "the database")


def dress_database(connection: Connection, name: str, like: Mapping[str, Any]) -> list[Problem]:
    """
    Give the database its settings; what is refused is told.

    That comes late: one of them may make every session read-only.
    """
    database = sql.Identifier(name)
    statements: list[sql.Composed] = []
    for role, settings in like["settings"]:
        for line in settings:
            key, _, value = line.partition("=")
            start = sql.SQL("alter database {}").format(database)
            if role is not None:
                start = sql.SQL("alter role {} in database {}").format(
                    sql.Identifier(role), database
                )
            statements.append(
                sql.SQL("{} set {} to {}").format(start, _setting(key), _value(key, value))
            )
    return run_all(connection, statements, "the database")


_DATABASE_RIGHTS = {"C": "create", "T": "temporary", "c": "connect"}
LARGE_OBJECT_RIGHTS = {"r": "select", "w": "update"}
# Settings that hold lists, whose parts are quoted one by one.
_LISTS = frozenset({"search_path", "temp_tablespaces", "local_preload_libraries",
                    "session_preload_libraries", "shared_preload_libraries"})  # fmt: skip


_PART = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",]+))\s*(?:,|$)')


def _setting(key: str) -> sql.Composable:
    return sql.SQL(".").join(map(sql.Identifier, key.split(".")))


def _value(key: str, value: str) -> sql.Composable:
    if key.lower() not in _LISTS:
        return sql.Literal(value)
    parts = [
        found[1].replace('""', '"') if found[1] is not None else found[2].strip()
        for found in _PART.finditer(value)
    ]
    return sql.SQL(", ").join(map(sql.Literal, parts or [value]))


def rights_of(
    acl: Iterable[str], letters: Mapping[str, str]
) -> list[tuple[sql.Composable, str, bool]]:
    """Who may do what, with the right to pass it on or not, out of PostgreSQL's own notation."""
    rights: list[tuple[sql.Composable, str, bool]] = []
    for item in acl:
        grantee, _, rest = item.rpartition("=")
        granted, _, _ = rest.partition("/")
        name = grantee[1:-1].replace('""', '"') if grantee.startswith('"') else grantee
        who: sql.Composable = sql.Identifier(name) if name else sql.SQL("public")
        for at, letter in enumerate(granted):
            if letter in letters:
                rights.append((who, letters[letter], granted[at + 1 : at + 2] == "*"))
    return rights


def run_all(connection: Connection, statements: Iterable[sql.Composed], what: str) -> list[Problem]:
    """Run each; those that the server refuses become problems."""
    problems = []
    for statement in statements:
        try:
            with connection.transaction():
                connection.execute(statement)
        except psycopg.Error as error:
            problems.append(_problem(what, error))
    return problems


def _problem(what: str, error: psycopg.Error) -> Problem:
    said = error.diag.message_primary or str(error)
    return Problem(what, f"could not be restored: {' '.join(said.split())}")
