"""
What a rotation of keys costs beside the amount of data that they protect.

    .venv/bin/python benchmarks/key_rotation.py --work /tmp/rotation --sizes 10 2048 --reps 7

For each size in MiB a tenant with two regions (directories) is taken on, its master in SoftHSM,
and backed up once. Then each change of keys is made some times over, in turns between the sizes, as
the command makes it: opening, settling, the records in the audit chain and all. ``written`` is what
the change writes into both regions, ``written of data`` what of that is neither a key nor a record.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from kryonix_backup.crypto.keys import KeyState
from kryonix_backup.model import MIB, RegionName, SourceName, TenantId, Tier
from kryonix_backup.sdk.client import Client
from kryonix_backup.sdk.keys import Keys
from kryonix_backup.sdk.tenants import add_tenant, tenant_keys
from kryonix_backup.settings import (
    KeySettings,
    RegionSettings,
    RootKey,
    SourceSettings,
    TenantSettings,
)
from kryonix_backup.testing.key_stores import HsmToken, make_softhsm

FILE_MIB = 32


class Cost(NamedTuple):
    """One change: seconds, and bytes of new files in every region."""

    seconds: float
    written: int
    of_data: int


class Subject:
    """A tenant with so many MiB in its repository."""

    def __init__(self, work: Path, mib: int, token: HsmToken) -> None:
        self.mib = mib
        self.root = work / f"{mib}-mib"
        (self.root / "files").mkdir(parents=True)
        (self.root / "key").write_bytes(os.urandom(32))
        self.env = {
            "KRYONIX_HOME": str(self.root / "home"),
            "KRYONIX_KEY_FILE": str(self.root / "key"),
            "KRYONIX_NEW_KEY_FILE": str(self.root / "key"),
            "KRYONIX_PIN": token.pin,
        }
        chance = random.Random(mib)
        for number in range(-(-mib // FILE_MIB)):
            size = min(FILE_MIB, mib - number * FILE_MIB) * MIB
            (self.root / f"files/{number}").write_bytes(chance.randbytes(size))
        self.url = f"{token.url}&label=rotation-{mib}"
        self.tenant = TenantId(f"bench-{mib}")
        settings = TenantSettings(
            self.tenant,
            Tier("enterprise"),
            tuple(
                RegionSettings(RegionName(name), f"file://{self.root / name}")
                for name in ("primary", "second")
            ),
            (SourceSettings(SourceName("files"), f"files://{self.root / 'files'}"),),
            keys=KeySettings(store=self.url),
        )
        add_tenant(settings, env=self.env)
        root = RootKey.from_environment(self.env, self.tenant, self.url)
        Client(settings, root, env=self.env).backup()
        shutil.rmtree(self.root / "files")

    def keys(self) -> Keys:
        """As a command opens them."""
        return tenant_keys(self.tenant, env=self.env)

    def stored(self) -> int:
        """Bytes of the primary region."""
        return sum(size for _, size in self._files("primary"))

    def measured(self, change: Callable[[], object]) -> Cost:
        """What a change costs."""
        before = {name for name, _ in self._all()}
        start = time.perf_counter()
        change()
        seconds = time.perf_counter() - start
        new = [(name, size) for name, size in self._all() if name not in before]
        data = sum(size for name, size in new if not name.startswith(("keys/", "audit/")))
        return Cost(seconds, sum(size for _, size in new), data)

    def _all(self) -> Iterator[tuple[str, int]]:
        for region in ("primary", "second"):
            yield from self._files(region)

    def _files(self, region: str) -> Iterator[tuple[str, int]]:
        for path in (self.root / region).rglob("*"):
            if path.is_file():
                yield str(path.relative_to(self.root / region)), path.stat().st_size


def changes(subject: Subject) -> dict[str, Callable[[], object]]:
    """Every change that rewrites no data, in an order that ends where it begins."""
    return {
        "rotate-data": lambda: subject.keys().rotate_data(),
        "rotate-master in SoftHSM": lambda: subject.keys().rotate_master(),
        "move to a key file": lambda: subject.keys().move(),
        "move to SoftHSM": lambda: subject.keys().move(subject.url),
        "suspend and allow again": lambda: _suspended(subject),
    }


def _suspended(subject: Subject) -> None:
    epochs = [row for row in subject.keys().show()["keys"] if row["purpose"] == "data"]
    newest = str(max(row["epoch"] for row in epochs))
    subject.keys().set_state(newest, KeyState.SUSPENDED)
    subject.keys().set_state(newest, KeyState.DECRYPT_ONLY)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a directory that is made")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 2048], help="in MiB")
    parser.add_argument("--reps", type=int, default=7)
    options = parser.parse_args()
    hsm = make_softhsm(options.work / "softhsm")
    os.environ["SOFTHSM2_CONF"] = str(hsm.config)
    token = hsm.make_token("rotation")
    subjects = [Subject(options.work, mib, token) for mib in options.sizes]
    costs: dict[tuple[str, int], list[Cost]] = {}
    for _ in range(options.reps):
        for name in changes(subjects[0]):
            for subject in subjects:
                cost = subject.measured(changes(subject)[name])
                costs.setdefault((name, subject.mib), []).append(cost)
    print("| change | repository | median s (least to most) | written | of that data |")
    print("| --- | --- | --- | --- | --- |")
    for (name, mib), rows in costs.items():
        seconds = [row.seconds for row in rows]
        size = next(each.stored() for each in subjects if each.mib == mib) / MIB
        spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
        written, data = max(row.written for row in rows), max(row.of_data for row in rows)
        print(
            f"| {name} | {size:,.0f} MiB | {statistics.median(seconds):.3f} ({spread}) |"
            f" {written:,} bytes | {data:,} |"
        )
    shutil.rmtree(options.work)


if __name__ == "__main__":
    main()
