"""
The port through which a repository sees a bucket or a directory.

An *object* is a name and bytes. Names are relative paths of ``a-z0-9._-`` and ``/``. Objects are
written once; only the care of keys removes them, or seals their content anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from kryonix_backup.model import MIB, Blob

WHOLE_BYTES = 32 * MIB
"""The size from which on a body may travel in parts: one that is cut off costs a part."""


class ObjectInfo(NamedTuple):
    """One object of a listing; ``size`` in bytes."""

    name: str
    size: int


class ObjectStore(Protocol):
    """
    Named, write-once byte objects; every method may be called from several threads at once.

    After `put` returns the object is durable and `get` and `list` see the whole of it; before
    that, none of it. A `put` that raises has left nothing under the name, or, where the answer
    was lost, the whole object. Of several that race for one name exactly one returns, and the
    others raise ObjectExists. A body beyond `WHOLE_BYTES` may travel in parts, and not every S3
    server decides the end of such a race at one moment: more than one may then return, and one
    whole body of theirs is stored. What races for a name has to be smaller.

    Raises, from every method: StoreUnavailable and StoreThrottled (passing), StoreDenied,
    StoreUnsupported, StoreFull; and where said, ObjectMissing and ObjectExists. Messages name
    the region's address and the object, and hold no secret.
    """

    @property
    def address(self) -> str:
        """Where this is, for messages: a URL without any secret."""
        ...

    @property
    def parallel(self) -> int:
        """How many `put` at once make the best of it: one for a disk, several for a network."""
        ...

    def create(self) -> None:
        """Make the bucket or directory where it is missing; existing ones are left as they are."""
        ...

    def put(self, name: str, body: Blob) -> None:
        """Write a new object; raises ObjectExists, and then changes nothing."""
        ...

    def replace(self, name: str, body: Blob) -> None:
        """
        Write an object whether it is there or not, in one request: a reader sees the whole of the
        old one or of the new one.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove an object for good; one that is not there is no failure."""
        ...

    def get(self, name: str) -> bytes:
        """A whole object; raises ObjectMissing."""
        ...

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """
        ``length`` bytes of an object from ``start`` on, or fewer where the object ends.

        Raises ObjectMissing.
        """
        ...

    def size(self, name: str) -> int:
        """An object's size in bytes; raises ObjectMissing."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """
        Every object whose name starts with ``prefix``, in no particular order.

        A bucket or directory that does not exist lists nothing.
        """
        ...
