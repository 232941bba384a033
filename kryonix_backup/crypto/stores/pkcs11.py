"""
Master keys in an HSM, by PKCS#11.

Each version is an AES-256 key ``{label}/v{number}`` that the token made and never gives away. It
encrypts and decrypts, and nothing else: a key that could also wrap others could be made to read
them out. Two processes that renew at once may make two keys of one name; they count as one version,
and each is tried.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, Session

from kryonix_backup.crypto.stores.encoding import from_text, to_text
from kryonix_backup.crypto.stores.location import HsmLocation
from kryonix_backup.crypto.stores.pkcs11_token import Token
from kryonix_backup.errors import KeyRefused, KeyStoreUnusable
from kryonix_backup.settings import Secret

_NONCE_BYTES = 12
_TAG_BYTES = 16
# How modules say that a tag does not fit; SoftHSM says GeneralError.
_NOT_AUTHENTIC = (
    pkcs11.GeneralError,
    pkcs11.FunctionFailed,
    pkcs11.EncryptedDataInvalid,
    pkcs11.EncryptedDataLenRange,
    pkcs11.SignatureInvalid,
    pkcs11.DataInvalid,
)


class Pkcs11Store:
    """A `ManagedKeyStore` in a token; see the module."""

    kind = "pkcs11"

    def __init__(self, location: HsmLocation, pin: Secret) -> None:
        self._location = location
        self._token = Token(location, pin)
        # Common to all versions of a tenant, and to nobody else's: a token finds by equality alone.
        self._id = hashlib.sha256(b"kryonix-backup " + location.label.encode()).digest()[:16]

    @property
    def address(self) -> str:
        """Which token and which label."""
        return self._location.address

    def wrap(self, key: Secret, context: bytes) -> dict[str, Any]:
        nonce = os.urandom(_NONCE_BYTES)

        def work(session: Session) -> tuple[str, bytes]:
            name, master = self._newest(session)
            wrapped = master.encrypt(key.reveal(), **_gcm(nonce, context))
            try:
                opened = master.decrypt(wrapped, **_gcm(nonce, context))
            except _NOT_AUTHENTIC:
                opened = b""
            if opened != key.reveal():  # it took a nonce of its own, or ignores one
                raise KeyStoreUnusable(
                    f"{self.address}: the token does not open what it has just wrapped",
                    "Use a token whose AES-GCM takes the nonce that it is given.",
                )
            return name, wrapped

        try:
            name, wrapped = self._token.run(work)
        except pkcs11.NoSuchKey as error:
            raise KeyRefused(
                f"there is no key {self.address}",
                "It is made by 'kryonix tenant add', or for a tenant with another root key by"
                " 'kryonix keys ID move'; one that was destroyed does not come back.",
            ) from error
        return {
            "store": self.kind,
            "key": name,
            "nonce": to_text(nonce),
            "wrapped": to_text(wrapped),
        }

    def unwrap(self, recipient: Mapping[str, Any], context: bytes) -> Secret:
        try:
            name = str(recipient["key"])
            nonce, wrapped = (from_text(recipient[field]) for field in ("nonce", "wrapped"))
            valid = recipient["store"] == self.kind
        except (KeyError, TypeError, ValueError) as error:
            raise KeyRefused("a wrapped key has the wrong form") from error
        if not valid or len(nonce) != _NONCE_BYTES or len(wrapped) < _TAG_BYTES:
            raise KeyRefused("a wrapped key has the wrong form")
        if not self._number(name):
            raise KeyRefused(f"a key is wrapped by {name!r}, which is not {self._location.label}")

        def work(session: Session) -> bytes | None:
            masters = [key for key in self._keys(session) if key.label == name]
            if not masters:
                raise pkcs11.NoSuchKey
            opened = (_decrypted(master, wrapped, nonce, context) for master in masters)
            return next((key for key in opened if key is not None), None)

        try:
            key = self._token.run(work)
        except pkcs11.NoSuchKey as error:
            raise KeyRefused(
                f"key {name} is not in token {self._location.token}: it was destroyed, or the"
                " token is another one",
                "Give the token that wrapped it, or another key store of the tenant.",
            ) from error
        if key is None:
            raise KeyRefused(f"key {name} does not open this repository's keys")
        return Secret(key)

    def renew(self) -> str:
        def work(session: Session) -> str:
            number = 1 + max((self._number(key.label) for key in self._keys(session)), default=0)
            name = f"{self._location.label}/v{number}"
            made = session.generate_key(
                KeyType.AES,
                256,
                label=name,
                id=self._id,
                store=True,
                capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
                template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
            )
            if made[Attribute.EXTRACTABLE] or not made[Attribute.SENSITIVE]:
                made.destroy()
                raise KeyStoreUnusable(
                    f"{self.address}: the token makes keys that can be read out",
                    "Use a token that keeps its keys.",
                )
            return name

        return self._token.run(work)

    def versions(self) -> list[str]:
        return self._token.run(self._names)

    def retire(self, keep: str) -> list[str]:
        def work(session: Session) -> list[str]:
            names = self._names(session)
            if keep not in names:
                raise KeyRefused(
                    f"there is no key {keep!r} in token {self._location.token}",
                    "Name one of the versions; nothing was destroyed.",
                )
            return names

        names = self._token.run(work)
        return self._destroy(names[: names.index(keep)])

    def destroy(self) -> list[str]:
        return self._destroy(self.versions())

    def _destroy(self, names: list[str]) -> list[str]:
        def work(session: Session) -> None:
            for key in self._keys(session):
                if key.label in names:
                    key.destroy()

        if names:
            self._token.run(work)
        return names

    def _names(self, session: Session) -> list[str]:
        return sorted({key.label for key in self._keys(session)}, key=self._number)

    def _newest(self, session: Session) -> tuple[str, Any]:
        keys = self._keys(session)
        if not keys:
            raise pkcs11.NoSuchKey
        newest = max(keys, key=lambda key: self._number(key.label))
        return newest.label, newest

    def _keys(self, session: Session) -> list[Any]:
        """Every key of this label, of any version."""
        template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.ID: self._id}
        found: list[Any] = list(session.get_objects(template))
        return [key for key in found if self._number(key.label)]

    def _number(self, name: str) -> int:
        """The version that a name tells; 0 where it is not a name of ours."""
        label, _, number = name.rpartition("/v")
        plain = number.isascii() and number.isdigit() and not number.startswith("0")
        return int(number) if label == self._location.label and plain and len(number) < 10 else 0


def _decrypted(master: Any, wrapped: bytes, nonce: bytes, context: bytes) -> bytes | None:
    """What the key opens, None where it does not; any other failure is the module's own error."""
    try:
        opened: bytes = master.decrypt(wrapped, **_gcm(nonce, context))
    except _NOT_AUTHENTIC:
        # The same words may stand for a token that has failed: one that works encrypts.
        master.encrypt(bytes(32), **_gcm(os.urandom(_NONCE_BYTES), context))
        return None
    return opened


def _gcm(nonce: bytes, context: bytes) -> dict[str, Any]:
    parameters = pkcs11.GCMParams(nonce, context, 8 * _TAG_BYTES)
    return {"mechanism": Mechanism.AES_GCM, "mechanism_param": parameters}
