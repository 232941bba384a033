"""The port of the places where a master key lives: a passphrase, a key file, an HSM or KMS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class ManagedKeyStore(KeyStore, Protocol):
    """
    A key store that makes the master itself, in versions, and can destroy it.

    Every recipient names the version that wrapped it, so older ones open as long as they are kept.
    A version has a public name, and none has the name of another.
    """

    @property
    def address(self) -> str:
        """Which store and which master, for messages."""
        ...

    def renew(self) -> str:
        """Make the first version or the next one, which wraps from now on; returns its name."""
        ...

    def versions(self) -> list[str]:
        """Names of the versions that are not destroyed, newest last."""
        ...

    def retire(self, keep: str) -> list[str]:
        """
        Destroy every version before ``keep``; returns the names of those that were destroyed.

        A later one stays: another process may have made it, and wrapped the keys by it. Raises
        KeyRefused, and destroys nothing, where there is no version of that name.
        """
        ...

    def destroy(self) -> list[str]:
        """
        Destroy every version; returns the names of those that this call destroyed.

        May be called again: what a call that failed has left is destroyed by the next.
        """
        ...
