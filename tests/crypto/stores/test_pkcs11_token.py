"""One login per token and process; what an HSM refuses, or loses, is told or mended. By SoftHSM."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pkcs11
import pytest

from kryonix_backup.crypto.stores.location import HsmLocation
from kryonix_backup.crypto.stores.pkcs11 import Pkcs11Store
from kryonix_backup.crypto.stores.pkcs11_token import Token, _process
from kryonix_backup.errors import KeyRefused, KeyStoreUnavailable, KeyStoreUnusable
from kryonix_backup.settings import Secret
from kryonix_backup.testing.key_stores import HsmToken, SoftHsm
from tests.crypto.stores.contract import CONTEXT, KEY, new_tenant
from tests.services.softhsm import softhsm, token

__all__ = ["softhsm", "token"]

pytestmark = pytest.mark.service


@pytest.fixture
def location(softhsm: SoftHsm, token: HsmToken) -> HsmLocation:
    return HsmLocation(softhsm.module, "kryonix tests", f"kryonix-{new_tenant()}")


@pytest.fixture
def store(location: HsmLocation, token: HsmToken) -> Pkcs11Store:
    made = Pkcs11Store(location, Secret(token.pin))
    made.renew()
    return made


@pytest.fixture(autouse=True)
def forget_refusals() -> Iterator[None]:
    yield
    _process.refused.clear()


def test_a_wrong_pin_is_told_once_to_the_token_and_helps_nobody(
    store: Pkcs11Store, location: HsmLocation
) -> None:
    """SoftHSM itself lets whoever comes second in on the first one's login."""
    recipient = store.wrap(Secret(KEY), CONTEXT)
    stranger = Pkcs11Store(location, Secret("not-the-pin"))

    with pytest.raises(KeyStoreUnusable, match="refuses the PIN") as refused:
        stranger.unwrap(recipient, CONTEXT)
    with pytest.raises(KeyStoreUnusable, match="not asked again"):
        stranger.unwrap(recipient, CONTEXT)

    assert "not-the-pin" not in f"{refused.value!r} {refused.value.hint}"
    assert "KRYONIX_PIN_FILE" in refused.value.hint
    assert store.unwrap(recipient, CONTEXT).reveal() == KEY


def test_a_token_that_is_not_there_is_named(location: HsmLocation) -> None:
    other = HsmLocation(location.module, "no such token", location.label)

    with pytest.raises(KeyStoreUnusable, match="no such token") as raised:
        Pkcs11Store(other, Secret("1234")).versions()
    assert "token=" in raised.value.hint


def test_a_module_that_is_none_is_named(location: HsmLocation, tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no module")

    for module, said in ((tmp_path / "none.so", "there is no"), (tmp_path / "text.so", "loaded")):
        other = HsmLocation(str(module), location.token, location.label)
        with pytest.raises(KeyStoreUnusable, match=said) as raised:
            Pkcs11Store(other, Secret("1234")).versions()
        assert str(module) in str(raised.value)


def test_two_tokens_of_one_module_are_used_side_by_side(
    store: Pkcs11Store, softhsm: SoftHsm, location: HsmLocation
) -> None:
    second = softhsm.make_token("second")
    other = Pkcs11Store(HsmLocation(location.module, "second", location.label), Secret(second.pin))
    other.renew()
    ours, theirs = store.wrap(Secret(KEY), CONTEXT), other.wrap(Secret(KEY), CONTEXT)

    assert store.unwrap(ours, CONTEXT).reveal() == other.unwrap(theirs, CONTEXT).reveal()
    with pytest.raises(KeyRefused, match="does not open"):
        store.unwrap(theirs, CONTEXT)


def test_an_expired_session_is_opened_again(store: Pkcs11Store) -> None:
    recipient = store.wrap(Secret(KEY), CONTEXT)
    for login in _process.logins.values():
        login.session.close()

    assert store.unwrap(recipient, CONTEXT).reveal() == KEY


def test_a_restarted_hsm_is_logged_in_to_again(store: Pkcs11Store, location: HsmLocation) -> None:
    recipient = store.wrap(Secret(KEY), CONTEXT)
    pkcs11.lib(location.module).finalize()

    assert store.unwrap(recipient, CONTEXT).reveal() == KEY
    pkcs11.lib(location.module).reinitialize()
    assert store.versions()


def test_a_session_that_ends_in_the_middle_is_opened_again(
    store: Pkcs11Store, location: HsmLocation, token: HsmToken
) -> None:
    calls = []

    def work(session: pkcs11.Session) -> str:
        calls.append(session)
        if len(calls) == 1:
            session.close()
        return session.generate_random(64).hex()

    assert Token(location, Secret(token.pin)).run(work)
    assert len(calls) == 2


def test_an_hsm_that_is_away_is_transient_and_no_key_counts_as_destroyed(
    store: Pkcs11Store, softhsm: SoftHsm
) -> None:
    recipient = store.wrap(Secret(KEY), CONTEXT)
    tokens = softhsm.config.parent / "tokens"
    shutil.move(tokens, tokens.with_name("away"))
    try:
        for ask in (
            lambda: store.unwrap(recipient, CONTEXT),
            lambda: store.wrap(Secret(KEY), CONTEXT),
            store.renew,
            store.versions,
        ):
            with pytest.raises(KeyStoreUnavailable, match="kryonix tests"):
                ask()
    finally:
        shutil.move(tokens.with_name("away"), tokens)

    assert store.unwrap(recipient, CONTEXT).reveal() == KEY


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (pkcs11.PinLocked(), KeyStoreUnusable, "locked"),
        (pkcs11.PinExpired(), KeyStoreUnusable, "expired"),
        (pkcs11.UserPinNotInitialized(), KeyStoreUnusable, "no user PIN"),
        (pkcs11.MultipleTokensReturned(), KeyStoreUnusable, "more than one token"),
        (pkcs11.MechanismInvalid(), KeyStoreUnusable, "AES-GCM"),
        (pkcs11.DeviceError(), KeyStoreUnavailable, "DeviceError"),
        (pkcs11.DeviceRemoved(), KeyStoreUnavailable, "DeviceRemoved"),
    ],
)
def test_what_a_module_says_has_a_meaning(
    location: HsmLocation, error: pkcs11.PKCS11Error, kind: type[Exception], said: str
) -> None:
    """SoftHSM never locks a PIN; other HSMs do after a few wrong ones."""
    translated = Token(location, Secret("1234")).translated(error)

    assert type(translated) is kind
    assert said in str(translated)
    assert location.token in str(translated)
