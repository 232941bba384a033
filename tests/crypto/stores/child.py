"""
A process of its own that opens a key, and a child forked from it that does so with the same store.

``python -m tests.crypto.stores.child TENANT CONTEXT`` takes a recipient on stdin and the key store
from the environment; both processes print the SHA-256 of what they opened, and of a round trip.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys

from kryonix_backup.crypto.keystore import KeyStore
from kryonix_backup.crypto.stores.registry import open_key_store
from kryonix_backup.model import tenant_id
from kryonix_backup.settings import RootKey, Secret


def _work(store: KeyStore, recipient: dict[str, object], context: bytes) -> None:
    opened = store.unwrap(recipient, context).reveal()
    again = store.unwrap(store.wrap(Secret(opened), context), context).reveal()
    assert again == opened
    os.write(1, (hashlib.sha256(opened).hexdigest() + "\n").encode())


def main() -> None:
    tenant, context = tenant_id(sys.argv[1]), sys.argv[2].encode()
    recipient = json.load(sys.stdin)
    store = open_key_store(RootKey.from_environment(os.environ, tenant), tenant)
    _work(store, recipient, context)
    child = os.fork()
    if child == 0:
        try:
            _work(store, recipient, context)
        except BaseException as error:
            os.write(2, f"in the fork: {error!r}".encode())
            os._exit(1)
        os._exit(0)
    _work(store, recipient, context)
    _, status = os.waitpid(child, 0)
    _work(store, recipient, context)  # the child's end has not ended its parent's session
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
