"""
Session fixtures of key stores; a test module or ``conftest.py`` imports those it wants.

``kms`` is moto's, a mock: there is no real KMS to run here. What it lets through is told in
`kryonix_backup.testing.key_stores`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from kryonix_backup.testing.key_stores import (
    HsmToken,
    MotoKms,
    SoftHsm,
    make_softhsm,
    moto_kms,
)


@cache
def _hsm(base: Path) -> SoftHsm:
    """The one of this process and its children: a module reads once where its tokens are."""
    folder = base / "softhsm"
    folder.mkdir()
    hsm = make_softhsm(folder)
    os.environ["SOFTHSM2_CONF"] = str(hsm.config)
    return hsm


@cache
def _token(base: Path) -> HsmToken:
    return _hsm(base).make_token("kryonix tests")


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    """SoftHSM with a folder of its own, whichever modules import this."""
    return _hsm(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> HsmToken:
    """A token that tests share; each takes a label of its own."""
    return _token(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def kms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoKms]:
    """moto's KMS, a mock."""
    with moto_kms(tmp_path_factory.mktemp("kms")) as running:
        yield running
