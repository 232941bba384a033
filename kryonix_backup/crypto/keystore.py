"""The port of the places where a master key lives: a passphrase, a key file, an HSM or KMS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from kryonix_backup.settings import Secret


class KeyStore(Protocol):
    """
    One master key, which wraps other keys and is never seen.

    A *recipient* is a JSON object that holds a wrapped key and all that this store needs to unwrap
    it, but no secret. ``context`` is bound to the wrapped key: with another one it does not open.
    """

    @property
    def kind(self) -> str:
        """What stands under ``store`` in the recipients that this store makes."""
        ...

    def wrap(self, key: Secret, context: bytes) -> dict[str, Any]:
        """A recipient for the key."""
        ...

    def unwrap(self, recipient: Mapping[str, Any], context: bytes) -> Secret:
        """The key again; raises KeyRefused when the master, the recipient or the context differ."""
        ...
