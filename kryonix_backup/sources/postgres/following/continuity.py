"""Whether a slot can still give what follows a segment, without a gap that nobody knows of."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from kryonix_backup.errors import AlreadyRunning, KryonixError, LogBroken
from kryonix_backup.model import LogHeader
from kryonix_backup.sources.postgres.server.address import Address
from kryonix_backup.sources.postgres.server.exported import lsn_of
from kryonix_backup.sources.postgres.server.session import Connection, refuse_standby, told

# No such slot or publication; what a slot kept was given up; a file of the WAL is gone.
_STATES_OF_LOSS = frozenset({"42704", "55000", "58P01"})


class Continued(NamedTuple):
    """
    A server that has what follows a segment.

    Where it ``repeats``, it sends what is in the segment too: it crashed, is another one now, or
    was put back.
    """

    timeline: int
    repeats: bool


def command(connection: Connection, text: str) -> list[list[str]]:
    """The rows that a replication command gives; raises the driver's errors."""
    result = connection.pgconn.exec_(text.encode())
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        raise error_from_result(result)
    return [
        [(result.get_value(row, column) or b"").decode() for column in range(result.nfields)]
        for row in range(result.ntuples)
    ]


def check_continuity(
    connection: Connection,
    replication: Connection,
    address: Address,
    opening: LogHeader,
    last: LogHeader,
) -> Continued:
    """
    Whether what follows ``last`` is there.

    Raises LogBroken where it is not, AlreadyRunning where another process reads the slot, and
    SourceUnavailable for a standby, which may have less than its primary.
    """
    refuse_standby(connection, address)
    slot = _slot(connection, opening)
    reason = _of_slot(slot, address, opening, last)
    anew = _prepared_anew(slot, opening)
    if reason is None or anew:
        reason = _of_database(connection, opening)
    system, timeline, position = command(replication, "IDENTIFY_SYSTEM")[0][:3]
    if reason is None and system != opening.meta["system"]:
        reason = f"this is another server (system {system} instead of {opening.meta['system']})"
    if reason is None:
        reason = _of_timeline(replication, int(timeline), last)
    if reason is None and lsn_of(position) < last.end:
        reason = "the server was put back to an earlier state"
    if reason is not None:
        error = broken(address, last, reason)
        error.prepared_anew = anew
        raise error
    return Continued(int(timeline), lsn_of(slot["confirmed_flush_lsn"]) < last.end)


def broken(address: Address, last: LogHeader, reason: str) -> LogBroken:
    """What is raised where nothing follows ``last`` without a gap."""
    since = last.restorable or last.last
    begins = since.isoformat() if since else "the beginning of its chain"
    return LogBroken(f"the log of {address.shown} has a gap after {begins}: {reason}")


def told_of_stream(error: psycopg.Error, address: Address, last: LogHeader) -> KryonixError:
    """The error that an operator can act on, where a stream did not begin or has ended."""
    if error.sqlstate in _STATES_OF_LOSS:
        return broken(address, last, " ".join((error.diag.message_primary or str(error)).split()))
    return told(error, address)


def _slot(connection: Connection, opening: LogHeader) -> dict[str, Any]:
    """What the server says of the slot, and of which database it should be; empty without one."""
    row = connection.execute(
        "select to_jsonb(s)::text, (select oid::int8 from pg_database"
        "  where datname = current_database()) from pg_replication_slots s where slot_name = %s",
        (opening.meta["slot"],),
    ).fetchone()
    return {} if row is None else {**json.loads(row[0]), "ours": row[1]}


def _of_slot(
    slot: dict[str, Any], address: Address, opening: LogHeader, last: LogHeader
) -> str | None:
    name = opening.meta["slot"]
    if not slot:
        return f"slot {name} is gone"
    if int(slot["datoid"] or 0) != slot["ours"]:
        return f"slot {name} is of another database"
    if slot["active"]:
        raise AlreadyRunning(
            f"another process follows the log of {address.shown}: slot {name} is read by process"
            f" {slot['active_pid']} of the server"
        )
    lost = slot.get("invalidation_reason") or ("lost" if slot["wal_status"] == "lost" else None)
    confirmed = slot["confirmed_flush_lsn"]
    if lost or confirmed is None:
        return f"the server has given up what slot {name} kept ({lost or 'nothing is confirmed'})"
    if lsn_of(confirmed) > last.end:
        return f"slot {name} was moved on, or made anew, by somebody else"
    return None


def _prepared_anew(slot: dict[str, Any], opening: LogHeader) -> bool:
    """Whether the slot is whole, and of a database whose log nobody has followed yet."""
    return bool(
        slot
        and int(slot["datoid"] or 0) == slot["ours"]
        and opening.meta["log"].rpartition("/")[2] != str(slot["ours"])
        and slot["confirmed_flush_lsn"] is not None
        and slot["wal_status"] != "lost"
        and not slot.get("invalidation_reason")
    )


def _of_database(connection: Connection, opening: LogHeader) -> str | None:
    row = connection.execute(
        "select (select oid::int8 from pg_database where datname = current_database()),"
        " (select oid::int8 from pg_publication where pubname = %s)",
        (opening.meta["slot"],),
    ).fetchone()
    assert row is not None
    if opening.meta["log"].rpartition("/")[2] != str(row[0]):
        return "this is another database of the same name"
    if row[1] is None:
        return f"publication {opening.meta['slot']} is gone"
    if row[1] != opening.meta["publication"]:
        return f"publication {opening.meta['slot']} was dropped and made anew"
    return None


def _of_timeline(replication: Connection, now: int, last: LogHeader) -> str | None:
    """A server that was promoted leads on only from what it had got before."""
    before = last.meta["timeline"]
    if now == before:
        return None
    for line in command(replication, f"TIMELINE_HISTORY {now}")[0][1].splitlines():
        words = line.split()
        if words and words[0] == str(before):
            if lsn_of(words[1]) >= last.end:
                return None
            return f"the server was promoted, at {words[1]}, before it had got everything"
    return f"the server is on timeline {now}, which does not come from timeline {before}"
