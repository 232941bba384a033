"""The HSM and the KMS of the tests are there, and ours alone."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from kryonix_backup.testing.key_stores import make_softhsm, moto_kms
from kryonix_backup.testing.s3_servers import REGION

pytestmark = pytest.mark.service


def test_a_token_has_a_pin_that_does_not_show(tmp_path: Path) -> None:
    hsm = make_softhsm(tmp_path)
    one, two = hsm.make_token("one"), hsm.make_token("two")

    assert one.pin != two.pin
    assert one.pin not in f"{one!r} {one.root!r}"
    assert one.url == f"pkcs11://{hsm.module}?token=one"
    assert one.environment() == {"KRYONIX_KEY_STORE": one.url, "KRYONIX_PIN": one.pin}
    assert len(list((tmp_path / "tokens").iterdir())) == 2


def test_a_token_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    hsm = make_softhsm(tmp_path)
    hsm.config.write_text("directories.tokendir = /nowhere/at/all\n")

    with pytest.raises(RuntimeError, match="no token"):
        hsm.make_token("one")


def test_the_mock_answers_while_it_is_wanted(tmp_path: Path) -> None:
    with moto_kms(tmp_path) as kms:
        urllib.request.urlopen(kms.server.endpoint + "/moto-api/").close()
        assert kms.url == f"kms://?region={REGION}&endpoint={kms.server.endpoint}"
        assert kms.server.root.secret_access_key not in repr(kms.root)

    assert kms.server.process.poll() is not None
