"""
What encryption and each key store cost a backup.

    .venv/bin/python benchmarks/key_stores.py --kit ../shared/bench --work /tmp/keys
    .venv/bin/python benchmarks/key_stores.py --kit ../shared/bench --work /tmp/keys --mib 64

The kit makes one tree. In each round, in an order that rotates, every variant backs it up as the
command does, first into a new repository and then once more, unchanged; then the repository is
opened by 'kryonix snapshots', some times over, which is what a key store costs every command.
``no cipher`` is the same
program with AES-GCM replaced by a copy: its repository is worth nothing and is thrown away. The
cipher's own share is measured inside one more run, by the CPU clock of the thread that calls it.
CPU seconds are the kernel's for the whole process. The KMS is moto's, a mock on this machine: it
has neither the distance nor the speed of Amazon's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from boundless import NAME, boundless_tiers

from kryonix_backup.crypto.keystore import ManagedKeyStore
from kryonix_backup.crypto.stores.registry import open_key_store
from kryonix_backup.model import tenant_id
from kryonix_backup.settings import RootKey
from kryonix_backup.testing.key_stores import make_softhsm, moto_kms

TENANT = tenant_id("bench")
NO_CIPHER, COUNTED = "no cipher", "counted"
OPENINGS = 3
BASE = "passphrase"


class Run(NamedTuple):
    """Seconds of one command."""

    wall: float
    cpu: float


class Turn(NamedTuple):
    """One variant in one round."""

    first: Run
    again: Run
    opened: Run


class Copier:
    """In place of AES-GCM: the same bytes, and a tag of zeros."""

    def __init__(self, key: bytes) -> None:
        self._tag = bytes(16)

    def encrypt_into(self, nonce: bytes, data: bytes, aad: bytes, out: memoryview) -> int:
        """Copy."""
        out[:-16] = memoryview(data).cast("B")
        out[-16:] = self._tag
        return len(out)

    def decrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        """Copy."""
        return bytes(memoryview(data)[:-16])


def child(mode: str, report: Path, arguments: list[str]) -> int:
    """The command, with the cipher replaced or watched."""
    from kryonix_backup.cli.main import main as command
    from kryonix_backup.crypto import seal

    spent: list[float] = []  # one entry a call: threads append without a lock
    patch = pytest.MonkeyPatch()  # fails where the name is gone
    if mode == NO_CIPHER:
        patch.setattr(seal, "AESGCM", Copier)
    elif mode == COUNTED:
        patch.setattr(seal, "AESGCM", _watched(spent))
    sys.argv = ["kryonix", *arguments]
    try:
        command()
    except SystemExit as end:
        report.write_text(json.dumps({"cipher": sum(spent), "calls": len(spent)}))
        return int(end.code or 0)
    report.write_text(json.dumps({"cipher": sum(spent), "calls": len(spent)}))
    return 0


def _watched(spent: list[float]) -> type:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    class Watched:
        def __init__(self, key: bytes) -> None:
            self._real = AESGCM(key)

        def encrypt_into(self, nonce: bytes, data: bytes, aad: bytes, out: memoryview) -> int:
            start = time.thread_time()
            length = self._real.encrypt_into(nonce, data, aad, out)
            spent.append(time.thread_time() - start)
            return length

        def decrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
            start = time.thread_time()
            plain = self._real.decrypt(nonce, data, aad)
            spent.append(time.thread_time() - start)
            return plain

    return Watched


class Bench:
    """One tree, and a home and a repository for the run under way."""

    def __init__(self, work: Path, tree: Path) -> None:
        self._work = work
        self._tree = tree
        self.report = work / "report.json"
        boundless_tiers(work / "tiers")

    def start(self, mode: str, env: Mapping[str, str]) -> None:
        """A new tenant, whose key is made where its store makes keys."""
        for name in ("home", "repository"):
            shutil.rmtree(self._work / name, ignore_errors=True)
        store = open_key_store(RootKey.from_environment(env, TENANT), TENANT)
        if isinstance(store, ManagedKeyStore) and not store.versions():
            store.renew()
        region, source = f"primary=file://{self._work}/repository", f"tree=files://{self._tree}"
        self.run(
            mode,
            env,
            "tenant",
            "add",
            TENANT,
            "--tier",
            NAME,
            "--region",
            region,
            "--source",
            source,
        )

    def run(self, mode: str, env: Mapping[str, str], *arguments: str) -> Run:
        """One command, measured; raises RuntimeError where it fails."""
        words = [sys.executable, __file__, "--child", mode, str(self.report), *arguments, "--json"]
        home = {"KRYONIX_HOME": str(self._work / "home"), "HOME": str(self._work)}
        home["KRYONIX_TIERS"] = str(self._work / "tiers/tiers.yaml")
        kept = {name: os.environ[name] for name in ("PATH", "SOFTHSM2_CONF")}
        begun = time.perf_counter()
        process = subprocess.Popen(
            words, env={**kept, **home, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {said.decode()}")
        return Run(wall, used.ru_utime + used.ru_stime)


def measure(
    bench: Bench, variants: Mapping[str, Mapping[str, str]], rounds: int
) -> dict[str, list[Turn]]:
    """Every variant, ``rounds`` times."""
    found: dict[str, list[Turn]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(rounds):
        order = names[turn % len(names) :] + names[: turn % len(names)]
        for name in order:
            mode = name if name == NO_CIPHER else "plain"
            bench.start(mode, variants[name])
            first, again = (bench.run(mode, variants[name], "backup", TENANT) for _ in range(2))
            opened = [bench.run(mode, variants[name], "snapshots", TENANT) for _ in range(OPENINGS)]
            found[name].append(Turn(first, again, min(opened, key=lambda run: run.cpu)))
            print(f"  round {turn + 1}: {name}: {found[name][-1]}", file=sys.stderr)
    return found


def table(found: Mapping[str, list[Turn]]) -> None:
    """Medians with their spread, and what opening by each store costs over a passphrase."""
    print("| key store | first backup: wall s | cpu s | again: wall s | cpu s | opening: cpu s |"
          " over the passphrase, of a first backup |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- |")
    passphrase = statistics.median(turn.opened.cpu for turn in found[BASE])
    backup = statistics.median(turn.first.cpu for turn in found[BASE])
    for name, turns in found.items():
        columns = [
            [turn.first.wall for turn in turns],
            [turn.first.cpu for turn in turns],
            [turn.again.wall for turn in turns],
            [turn.again.cpu for turn in turns],
            [turn.opened.cpu for turn in turns],
        ]
        cells = [
            f"{statistics.median(column):.2f} ({min(column):.2f} to {max(column):.2f})"
            for column in columns
        ]
        over = 100 * (statistics.median(columns[-1]) - passphrase) / backup
        print(f"| {name} | {' | '.join(cells)} | {over:+.1f} % |")


def cipher_share(bench: Bench, env: Mapping[str, str]) -> None:
    """What part of a first backup's CPU time AES-GCM itself takes."""
    bench.start(COUNTED, env)
    run = bench.run(COUNTED, env, "backup", TENANT)
    counted = json.loads(bench.report.read_text())
    share = 100 * counted["cipher"] / run.cpu
    print(
        f"\nAES-GCM: {counted['cipher']:.2f} of {run.cpu:.2f} CPU seconds ({share:.1f} %),"
        f" {counted['calls']} calls to seal and to open again"
    )


def main() -> int:
    """Make the tree, start the stores and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kit", required=True, type=Path, help="folder of gen_dataset.py")
    parser.add_argument("--work", required=True, type=Path, help="folder for the tree and all else")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    work = options.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    subprocess.run(
        [sys.executable, options.kit / "gen_dataset.py", "v1", work / "tree",
         "--mib", str(options.mib)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    (work / "key").write_bytes(os.urandom(32))
    hsm = make_softhsm(work / "softhsm")
    os.environ["SOFTHSM2_CONF"] = str(hsm.config)
    by_passphrase = {"KRYONIX_PASSPHRASE": "bench passphrase, not a secret"}
    bench = Bench(work, work / "tree")
    with moto_kms(work / "kms") as kms:
        variants = {
            NO_CIPHER: by_passphrase,
            BASE: by_passphrase,
            "key file": {"KRYONIX_KEY_FILE": str(work / "key")},
            "PKCS#11 (SoftHSM)": hsm.make_token("bench").environment(),
            "KMS (a mock, here)": kms.environment(),
        }
        table(measure(bench, variants, options.rounds))
        cipher_share(bench, by_passphrase)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        raise SystemExit(child(sys.argv[2], Path(sys.argv[3]), sys.argv[4:]))
    raise SystemExit(main())
