"""
Measure the engine beside restic and borg on the same tree, in one run.

    .venv/bin/python benchmarks/engine.py --kit ../shared/bench --work /tmp/bench --bin-dir BORG/bin
    .venv/bin/python benchmarks/engine.py --kit ../shared/bench --work /tmp/bench --s3
    .venv/bin/python benchmarks/engine.py --kit ../shared/bench --work /tmp/big --mib 4096 --alone

The kit (`gen_dataset.py`, `peers.py`) makes the tree, edits 3 % of it, rotates the order of the
programs and compares every restored tree with its source; this file only says how they are
called. Figures are medians; CPU seconds and peak memory are the kernel's for the whole process.

What one program has written and the disk does not have yet would slow down the next one, so each
program's turn ends, and its first backup begins, with a `sync` that is not counted. Nor is the
reading of the tree before every first backup: borg takes out of the page cache what it has read,
and whoever comes after it would read from the disk. Over S3 there is neither: the kit's own restic
has no place for them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from boundless import NAME, boundless_tiers

KRYONIX = Path(sys.executable).with_name("kryonix")
PASSPHRASE = "bench-passphrase-not-a-secret"
# Before a first backup the disk has everything, and the page cache the tree.
READY = ["sync", "sh -c 'tar -cf - {tree} | cat >/dev/null'"]


def restic(program: str) -> dict[str, object]:
    """How the kit calls restic by itself, with what makes a first backup `READY`."""
    command = f"{shlex.quote(program)} -q -r {{repo}}"
    return {
        "name": "restic",
        "version": _version(program, "version"),
        "env": {
            "RESTIC_PASSWORD": PASSPHRASE,
            "RESTIC_CACHE_DIR": "{home}/cache",
            "HOME": "{home}",
        },
        "init": [f"{command} init --repository-version 2", *READY],
        "backup": f"{command} backup --tag {{label}} {{tree}}",
        "restore": f"{command} restore latest --target {{target}}",
        "check": f"{command} check --read-data",
        "prune": [f"{command} forget --keep-last 1 --prune", "sync"],
    }


def borg(program: str) -> dict[str, object]:
    """The same for borg."""
    command = shlex.quote(program)
    return {
        "name": "borg",
        "version": f"{_version(program, '--version')} repokey-blake2",
        "env": {
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_BASE_DIR": "{home}",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "HOME": "{home}",
        },
        "init": [f"{command} init -e repokey-blake2 {{repo}}", *READY],
        "backup": f"{command} create --compression zstd,3 {{repo}}::{{label}} {{tree}}",
        "restore": f"{command} extract {{repo}}::b3",
        "check": f"{command} check --verify-data {{repo}}",
        "prune": [
            f"{command} delete {{repo}}::b1",
            f"{command} delete {{repo}}::b2",
            f"{command} compact {{repo}}",
            "sync",
        ],
    }


def _version(program: str, word: str) -> str:
    done = subprocess.run([program, word], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def kryonix(tiers: Path, *, s3: bool) -> dict[str, object]:
    """The same for `kryonix`; words in braces are filled in by the kit."""
    command = shlex.quote(str(KRYONIX))
    region = "s3://{s3_bucket}?endpoint={s3}&region=us-east-1" if s3 else "file://{repo}"
    add = (
        f"{command} tenant add bench --tier {NAME} --region 'primary={region}'"
        " --source 'tree=files://{tree}'"
    )
    env = {
        "HOME": "{home}",
        "KRYONIX_HOME": "{home}/state",
        "KRYONIX_PASSPHRASE": PASSPHRASE,
        "KRYONIX_TIERS": str(tiers),  # a tier's bandwidth would be what is measured
        "PATH": "/usr/bin:/bin",
    }
    if s3:
        env |= {"AWS_ACCESS_KEY_ID": "{s3_key}", "AWS_SECRET_ACCESS_KEY": "{s3_secret}"}
    return {
        "name": "kryonix-s3" if s3 else "kryonix",
        "s3": s3,
        "env": env,
        "init": [add] if s3 else [add, *READY],
        "backup": f"{command} backup bench --kind incremental",
        "restore": f"{command} restore bench --to 'tree=files://{{target}}'",
        "check": f"{command} verify bench --level data",
        "prune": "true" if s3 else "sync",
    }


def specifications(options: argparse.Namespace) -> list[dict[str, object]]:
    """Every program that takes part, but for those that the kit knows how to call over S3."""
    ours = kryonix(boundless_tiers(options.work.resolve() / "tiers"), s3=options.s3)
    if options.alone or options.s3:
        return [ours]
    found = {}
    for name in ("restic", "borg"):
        path = os.pathsep.join([*options.bin_dir, os.environ.get("PATH", os.defpath)])
        found[name] = shutil.which(name, path=path) or name
    return [restic(found["restic"]), borg(found["borg"]), ours]


def main() -> int:
    """Run the kit and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kit", required=True, type=Path, help="folder of peers.py")
    parser.add_argument("--work", required=True, type=Path, help="folder for trees and results")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--bin-dir", action="append", default=[], help="where borg or weed is")
    parser.add_argument("--restore-dir", help="restore there instead, on a tmpfs for example")
    parser.add_argument("--s3", action="store_true", help="over S3, beside restic over S3")
    parser.add_argument("--alone", action="store_true", help="no other programs")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    peers = "restic-s3" if options.s3 and not options.alone else ""
    results = options.work / "results.json"
    words = [
        sys.executable, str(options.kit / "peers.py"), "run", "--work", str(options.work),
        "--mib", str(options.mib), "--reps", str(options.reps), "--peers", peers,
        "--out", str(results),
    ]  # fmt: skip
    for spec in specifications(options):
        path = options.work / f"{spec['name']}.json"
        path.write_text(json.dumps(spec, indent=1))
        words += ["--peer-json", str(path)]
    for folder in [*options.bin_dir, str(KRYONIX.parent)]:
        words += ["--bin-dir", folder]
    if options.restore_dir:
        words += ["--restore-dir", options.restore_dir]
    return subprocess.run(words, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
