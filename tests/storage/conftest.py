"""The servers of the S3 tests, and a tenant whose account is made."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from kryonix_backup.model import TenantId
from kryonix_backup.storage.accounts import drop_account
from tests.services.s3 import ministack, seaweedfs

__all__ = ["ministack", "seaweedfs"]


@pytest.fixture
def tenant() -> Iterator[TenantId]:
    """A tenant whose account is gone after the test."""
    name = TenantId(f"kryonix-test-{secrets.token_hex(3)}")
    yield name
    if os.geteuid() == 0:
        drop_account(name)
