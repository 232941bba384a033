from __future__ import annotations

import pytest

from kryonix_backup.storage.memory import MemoryStore
from kryonix_backup.storage.store import ObjectStore
from tests.storage.contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return MemoryStore()


def test_a_store_keeps_its_own_copy() -> None:
    store, body = MemoryStore(), bytearray(b"first")
    store.put("a", body)

    body[:] = b"other"

    assert store.get("a") == b"first"
