"""
What an incremental backup of a source with a log is made of: the snapshot before, the log since.

Whatever keeps the two from fitting together is a LogBroken, whose message says why; the backup is
then a full one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain as joined
from typing import Any

from kryonix_backup.backup.follow import drain_log
from kryonix_backup.clock import Clock
from kryonix_backup.errors import AlreadyRunning, Damaged, LogBroken, SourceUnprepared
from kryonix_backup.model import Blob, ChainId, Entry, LogHeader
from kryonix_backup.repository.log import (
    LogBook,
    fetched_ahead,
    headers_of,
)
from kryonix_backup.repository.log_reach import find_start, in_order, stopped_from
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import PartResult, SourceResult
from kryonix_backup.sources.cost import Load
from kryonix_backup.sources.registry import phase_of
from kryonix_backup.sources.source import FOLDED, FoldingSource, Size, Stretch, folded_segment

log = logging.getLogger(__name__)

# A restore from an incremental backup takes at most so many times as long as one from a full, and
# so many seconds: what it wins in backing up it must not lose in restoring.
_TIMES = 2.0
_SECONDS = 10.0


def stretch_since(
    repository: Repository, source: FoldingSource, before: SourceResult, clock: Clock
) -> Stretch:
    """
    The log from the rows of that snapshot on up to now, which is fetched first.

    Raises LogBroken where nothing leads from there to now.
    """
    position = before.position
    if not position:
        raise LogBroken("the snapshot before stands at no place of a transaction log")
    _check_log(source, position)
    book = repository.log(before.name)
    try:
        drain_log(repository, before.name, source, clock)
    except AlreadyRunning:
        log.info("another process follows the log of %s; what it has kept is taken", before.name)
    chain, first, headers = _since(book, position)
    moment = datetime.fromisoformat(position["time"])
    segments: Iterable[tuple[LogHeader, Iterable[Blob]]] = fetched_ahead(
        range(first, headers[-1].number + 1),
        lambda number: book.segment(chain, number),
        repository.store.parallel,  # each may hold a whole body
    )
    earlier = folded_segment(position)
    if earlier is not None:
        (part,) = before.parts
        segments = joined([(earlier, repository.content(part.root, FOLDED))], segments)
    return Stretch(
        log=position["log"],
        after=earlier.start if earlier else position["at"],
        end=max(headers[-1].end, position["at"]),
        time=max([moment, *(header.last for header in headers if header.last)]),
        segments=segments,
    )


def all_entries(entries: Iterator[Entry], part: PartResult) -> Iterator[Entry]:
    """The same; raises Damaged in the end where some of the part's were left out."""
    count = 0
    for entry in entries:
        count += 1
        yield entry
    if count != part.entries:
        raise Damaged(f"the snapshot before has lost {part.entries - count} of its entries")


def check_worth(result: SourceResult, now: Size) -> None:
    """
    Raise LogBroken where restoring from it would take too long beside a new full backup.

    ``now`` is how much such a one would hold.
    """
    phase = phase_of(result.url)
    folded = result.position["folded"]["changes"]
    ours = Load(result.entries, result.bytes_total, folded=folded).seconds(phase)
    theirs = Load(now.entries, now.bytes).seconds(phase)
    if ours > _TIMES * theirs + _SECONDS:
        raise LogBroken(
            f"its {folded} changes since the last full backup would make a restore take about"
            f" {ours:.0f} s, of a new full backup {theirs:.0f} s"
        )


def _check_log(source: FoldingSource, position: Mapping[str, Any]) -> None:
    try:
        opening = source.new_chain(renew=False)
    except SourceUnprepared as error:
        raise LogBroken(error.message) from error
    if opening.meta["log"] != position["log"]:
        raise LogBroken("the snapshot before is of another database, or of another server")


def _since(book: LogBook, position: Mapping[str, Any]) -> tuple[ChainId, int, list[LogHeader]]:
    """The chain that leads from there to now, the first segment needed, and all headers from it."""
    newest = max((chain for chain, count in book.chains().items() if count), default=None)
    start = find_start(book, position)
    if start is None or start.chain != newest:
        raise LogBroken("the transaction log has a gap since the snapshot before")
    chain, first, count = start
    headers = list(in_order(headers_of(book, chain, first, count)))
    for header in headers:
        if stopped_from(header, position["at"]) is not None:
            raise LogBroken(f"the transaction log cannot be replayed: {header.broken}")
    return chain, first, headers
