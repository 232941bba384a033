"""Objects in a dictionary: for tests, and for trying things out."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from kryonix_backup.errors import ObjectExists, ObjectMissing
from kryonix_backup.model import Blob
from kryonix_backup.storage.object_name import check_object_name, check_prefix
from kryonix_backup.storage.store import ObjectInfo


class MemoryStore:
    """An `ObjectStore` that lives as long as the process; ``objects`` is all it holds."""

    def __init__(self, address: str = "memory://") -> None:
        self.address = address
        self.parallel = 1
        self.objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def create(self) -> None:
        """Do nothing: it is there already."""

    def put(self, name: str, body: Blob) -> None:
        """Write a new object; raises ObjectExists."""
        copy = bytes(body)
        with self._lock:
            if check_object_name(name) in self.objects:
                raise ObjectExists(f"{self.address}: object {name} exists already")
            self.objects[name] = copy

    def replace(self, name: str, body: Blob) -> None:
        """Write an object whether it is there or not."""
        copy = bytes(body)
        with self._lock:
            self.objects[check_object_name(name)] = copy

    def delete(self, name: str) -> None:
        """Remove an object for good; one that is not there is no failure."""
        with self._lock:
            self.objects.pop(check_object_name(name), None)

    def get(self, name: str) -> bytes:
        """A whole object; raises ObjectMissing."""
        try:
            return self.objects[check_object_name(name)]
        except KeyError as error:
            raise ObjectMissing(f"{self.address}: object {name} is missing") from error

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Bytes of an object from ``start`` on; raises ObjectMissing."""
        return self.get(name)[start : start + length]

    def size(self, name: str) -> int:
        """An object's size in bytes; raises ObjectMissing."""
        return len(self.get(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose name starts with ``prefix``, as it was when the listing began."""
        check_prefix(prefix)
        with self._lock:
            found = list(self.objects.items())
        return (ObjectInfo(name, len(body)) for name, body in found if name.startswith(prefix))
