"""
The way into the tokens of PKCS#11 modules.

A module is told that one thread uses it, and knows one login per token and process: so there is one
lock and one session per token for the whole process, however many stores there are. What fails is
tried once more with the module started anew, as after the restart of an HSM or an expired session.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import pkcs11
from pkcs11 import PKCS11Error, Session

from kryonix_backup.crypto.stores.location import HsmLocation
from kryonix_backup.errors import KeyStoreUnavailable, KeyStoreUnusable, KryonixError
from kryonix_backup.settings import Secret

T = TypeVar("T")

_PIN_HINT = (
    "Set the right PIN in KRYONIX_{TENANT}_PIN_FILE or KRYONIX_PIN_FILE; every wrong one that"
    " reaches the token brings it nearer to being locked."
)
_LOCKED_HINT = "Let the token's security officer set a new PIN, with the tool of the HSM's maker."
_WRONG_PIN = (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange)
_PIN_STATES: dict[type[PKCS11Error], str] = {
    pkcs11.PinLocked: "its PIN is locked after too many wrong ones",
    pkcs11.PinExpired: "its PIN has expired",
    pkcs11.UserPinNotInitialized: "it has no user PIN yet",
}
# What trying again never mends.
_LASTING: dict[type[PKCS11Error], str] = {
    pkcs11.MultipleTokensReturned: "more than one token has this label",
    pkcs11.MechanismInvalid: "it has no AES-GCM",
    pkcs11.MechanismParamInvalid: "it refuses the parameters of AES-GCM",
    pkcs11.FunctionNotSupported: "it lacks a function that is needed",
    pkcs11.TemplateInconsistent: "it refuses a key that can never be read out",
    pkcs11.AttributeValueInvalid: "it refuses a key that can never be read out",
    pkcs11.KeySizeRange: "it has no keys of 256 bits",
    pkcs11.TokenWriteProtected: "it is write-protected",
    pkcs11.DeviceMemory: "it has no room left for a key",
}


class _Login(NamedTuple):
    session: Session
    pin: bytes  # a digest: another PIN must not profit from this login


class _Process:
    """What this process knows of modules and tokens."""

    def __init__(self) -> None:
        self.salt = os.urandom(32)
        self.lock = threading.RLock()
        self.logins: dict[tuple[str, str], _Login] = {}
        self.refused: set[tuple[str, str, bytes]] = set()
        self.inherited: set[str] = set()

    def begin_anew(self) -> None:
        """A child must start modules itself, and hold no lock that its parent's threads held."""
        self.lock = threading.RLock()
        self.inherited |= {module for module, _ in self.logins}
        self.logins = {}


_process = _Process()
os.register_at_fork(after_in_child=_process.begin_anew)


class Token:
    """A token that this process is logged in to while it is used."""

    def __init__(self, location: HsmLocation, pin: Secret) -> None:
        self._location = location
        self._place = (location.module, location.token)
        self._pin = pin
        self._digest = hashlib.blake2b(pin.reveal(), key=_process.salt).digest()

    def run(self, work: Callable[[Session], T]) -> T:
        """
        What ``work`` makes of a session of its own; it may be called twice.

        Raises KeyStoreUnusable and KeyStoreUnavailable for what the module says, but NoSuchKey as
        it is: ``work`` raises it, and knows what it means.
        """
        with _process.lock:
            try:
                return work(self._session())
            except PKCS11Error:
                self._start_anew()
            try:
                return work(self._session())
            except pkcs11.NoSuchKey:
                raise
            except PKCS11Error as error:
                raise self.translated(error) from error

    def translated(self, error: PKCS11Error) -> KryonixError:
        """Our error for one of the module's."""
        where = f"token {self._location.token} of {self._location.module}"
        if isinstance(error, pkcs11.NoSuchToken):
            return KeyStoreUnusable(
                f"{where} is not there",
                "Check 'token=' in the key store's address; see the tokens with"
                " 'softhsm2-util --show-slots' or the tool of the HSM's maker.",
            )
        if isinstance(error, _WRONG_PIN):
            return KeyStoreUnusable(f"{where} refuses the PIN", _PIN_HINT)
        for kind, said in _PIN_STATES.items():
            if isinstance(error, kind):
                return KeyStoreUnusable(f"{where}: {said}", _LOCKED_HINT)
        for kind, said in _LASTING.items():
            if isinstance(error, kind):
                return KeyStoreUnusable(f"{where}: {said}", "Use a token that can do this.")
        return KeyStoreUnavailable(f"{where} fails with {type(error).__name__}")

    def _session(self) -> Session:
        if self._location.module in _process.inherited:
            self._start_anew()
        login = _process.logins.get(self._place)
        if login is not None and login.pin == self._digest:
            with suppress(PKCS11Error):
                login.session.generate_random(64)  # whether it is still one
                return login.session
        if login is not None:  # expired, or another's: the token itself judges this PIN
            self._start_anew()
        return self._log_in()

    def _log_in(self) -> Session:
        if (*self._place, self._digest) in _process.refused:
            raise KeyStoreUnusable(
                f"token {self._location.token} of {self._location.module} has refused this PIN"
                " already, and is not asked again",
                _PIN_HINT,
            )
        token = self._library().get_token(token_label=self._location.token)
        try:
            session = token.open(rw=True, user_pin=self._pin.reveal().decode(errors="replace"))
        except PKCS11Error as error:
            self._start_anew()  # the session that could not log in is closed with the rest
            if isinstance(error, _WRONG_PIN):
                _process.refused.add((*self._place, self._digest))
            if isinstance(error, (*_WRONG_PIN, *_PIN_STATES)):
                raise self.translated(error) from error
            raise
        _process.logins[self._place] = _Login(session, self._digest)
        return session

    def _library(self) -> pkcs11._pkcs11.lib:
        module = self._location.module
        if not Path(module).is_file():
            raise KeyStoreUnusable(
                f"there is no PKCS#11 module {module}",
                "Install the HSM's client (Debian: softhsm2), or correct the key store's address.",
            )
        try:
            return pkcs11.lib(module)
        except PKCS11Error as error:
            if type(error) is not PKCS11Error:
                raise
            raise KeyStoreUnusable(
                f"{module} cannot be loaded as a PKCS#11 module",
                "Name the HSM's own module in the key store's address.",
            ) from error

    def _start_anew(self) -> None:
        """Close every session of the module; each token is logged in to again when it is needed."""
        module = self._location.module
        _process.inherited.discard(module)
        for place in [place for place in _process.logins if place[0] == module]:
            del _process.logins[place]
        with suppress(PKCS11Error, KryonixError):
            self._library().finalize()
