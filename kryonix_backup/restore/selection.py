"""Which entries of a source come back, and what is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kryonix_backup.errors import Damaged
from kryonix_backup.model import Blob, ChunkId, Entry, EntryKind
from kryonix_backup.patterns import Patterns
from kryonix_backup.repository.content import Ref, named_chunks, refs_of
from kryonix_backup.repository.repository import Repository
from kryonix_backup.repository.snapshot import SourceResult
from kryonix_backup.repository.tree import TreeReader


class Selection:
    """
    The entries of one source that fit some gitignore patterns, or all of them without any.

    The directories above an entry come with it. A hard link whose first name stays behind comes
    back as the file itself.
    """

    def __init__(
        self, repository: Repository, source: SourceResult, include: Sequence[str]
    ) -> None:
        self._repository = repository
        self._source = source
        self._wanted = Patterns(include, ())
        self._reader = repository.reader()

    def totals(self) -> tuple[int, int]:
        """How many entries there are, and their bytes."""
        if self._wanted.all:
            return (
                sum(part.entries for part in self._source.parts),
                sum(part.bytes for part in self._source.parts),
            )
        entries = size = 0
        for entry in self.entries():
            entries += 1
            size += entry.size
        return entries, size

    def entries(self) -> Iterator[Entry]:
        """The selected entries, in order."""
        for part in self._source.parts:
            tree = self._repository.tree(part.root, self._reader)
            yield from tree.entries() if self._wanted.all else self._fitting(tree)

    def contents(
        self, wanted: Callable[[Entry], bool] | None = None
    ) -> Iterator[tuple[Entry, Iterator[Blob]]]:
        """
        The selected entries with their content, or the wanted ones of them.

        What is not read of one is passed over.
        """
        flow = self._reader.stream(self._flow(wanted))
        entry = next(flow, None)
        while isinstance(entry, Entry):
            pieces = _Pieces(flow)
            yield entry, pieces
            entry = pieces.rest()

    def _flow(self, wanted: Callable[[Entry], bool] | None) -> Iterator[Ref | Entry]:
        for entry in self.entries():
            if wanted is not None and not wanted(entry):
                continue
            yield entry
            if entry.refs:
                yield from refs_of(entry, self._reader.read)

    def chunks(self) -> Iterator[tuple[Entry, list[ChunkId]]]:
        """The selected entries with the chunks of their content, and of the lists of long ones."""
        for entry in self.entries():
            chunks = named_chunks(entry)
            if entry.indirect:
                chunks.extend(ref.chunk for ref in refs_of(entry, self._reader.read))
            yield entry, chunks

    def _fitting(self, tree: TreeReader) -> Iterator[Entry]:
        above: list[Entry] = []
        given: set[bytes] = set()  # the directories above the present entry that were given
        moved: dict[bytes, bytes] = {}
        for entry in tree.entries():
            above = [each for each in above if _is_above(each.path, entry.path)]
            given = {each.path for each in above if each.path in given}
            fits = self._fits(entry)
            if fits:
                for each in above:
                    if each.path not in given:
                        given.add(each.path)
                        yield each
                yield self._with_content(tree, entry, moved)
            if entry.kind is EntryKind.DIRECTORY:
                above.append(entry)
                if fits:
                    given.add(entry.path)

    def _fits(self, entry: Entry) -> bool:
        # A database's schema, for example, comes with any of its tables.
        return bool(entry.meta.get("needed")) or self._wanted.includes(
            entry.path, directory=entry.kind is EntryKind.DIRECTORY
        )

    def _with_content(self, tree: TreeReader, entry: Entry, moved: dict[bytes, bytes]) -> Entry:
        if entry.kind is not EntryKind.HARDLINK:
            return entry
        first = bytes(entry.meta["target"])
        if first in moved:
            return entry._replace(meta={**entry.meta, "target": moved[first]})
        original = next(tree.entries(first), None)
        if original is None or original.path != first:
            raise Damaged(f"the first name of the hard link {entry.text!r} is not in the snapshot")
        if self._fits(original):
            return entry
        moved[first] = entry.path
        return original._replace(path=entry.path)


class _Pieces:
    """What comes before the next entry in a flow of entries and content."""

    def __init__(self, flow: Iterator[Blob | Entry]) -> None:
        self._flow = flow
        self._after: Entry | None = None
        self._ended = False

    def __iter__(self) -> Iterator[Blob]:
        return self

    def __next__(self) -> Blob:
        if self._ended:
            raise StopIteration
        for piece in self._flow:
            if not isinstance(piece, Entry):
                return piece
            self._after = piece
            break
        self._ended = True
        raise StopIteration

    def rest(self) -> Entry | None:
        """Pass over what was not taken; the next entry, or None at the end."""
        for _ in self:
            pass
        return self._after


def _is_above(directory: bytes, path: bytes) -> bool:
    return not directory or path.startswith(directory + b"/")
