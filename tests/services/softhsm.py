"""
Session fixtures of key stores; a test module or ``conftest.py`` imports those it wants.

``kms`` is moto's, a mock: there is no real KMS to run here. What it lets through is told in
`kryonix_backup.testing.key_stores`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from kryonix_backup.testing.key_stores import (
    HsmToken,
    MotoKms,
    SoftHsm,
    make_softhsm,
    moto_kms,
)


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    """SoftHSM with a folder of its own, which this process and its children use."""
    hsm = make_softhsm(tmp_path_factory.mktemp("softhsm"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "SOFTHSM2_CONF", str(hsm.config))
        yield hsm


@pytest.fixture(scope="session")
def token(softhsm: SoftHsm) -> HsmToken:
    """A token that tests share; each takes a label of its own."""
    return softhsm.make_token("kryonix tests")


@pytest.fixture(scope="session")
def kms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoKms]:
    """moto's KMS, a mock."""
    with moto_kms(tmp_path_factory.mktemp("kms")) as running:
        yield running
