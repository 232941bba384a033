"""
Accounts for tenants.

Run as root, the real programs make and remove one; run as another user, they are refused.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from kryonix_backup.errors import ConfigError
from kryonix_backup.model import TenantId
from kryonix_backup.storage.accounts import (
    account_name,
    drop_account,
    find_account,
    make_account,
    may_enter,
)

AS_ROOT = os.geteuid() == 0


def test_a_name_fits_or_is_refused() -> None:
    assert account_name(TenantId("a" * 25)) == f"backup_{'a' * 25}"
    with pytest.raises(ConfigError, match="32 at most") as caught:
        account_name(TenantId("a" * 26))
    assert "25 characters" in caught.value.hint


def test_an_account_is_made_once_and_is_in_no_other_group(tenant: TenantId) -> None:
    assert find_account(tenant) is None
    if not AS_ROOT:
        with pytest.raises(ConfigError, match="only root"):
            make_account(tenant)
        return
    made = make_account(tenant)

    assert make_account(tenant) == made == find_account(tenant)
    assert made.uid != 0
    assert os.getgrouplist(made.name, made.gid) == [made.gid]
    assert made.operators != made.gid
    entry = pwd.getpwnam(made.name)
    assert (entry.pw_shell, entry.pw_dir) == ("/usr/sbin/nologin", "/nonexistent")
    drop_account(tenant)
    drop_account(tenant)
    assert find_account(tenant) is None


def test_the_kernel_says_who_may_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    if not AS_ROOT:
        assert may_enter(tmp_path, os.getuid(), os.getgid())
    else:
        assert not may_enter(tmp_path, 65534, 65534)
        assert may_enter(tmp_path, 0, 0)
