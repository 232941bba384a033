"""
Measure the engine beside restic and borg on the same tree, in one run.

    .venv/bin/python benchmarks/engine.py --kit ../shared/bench --work /tmp/bench --bin-dir BORG/bin
    .venv/bin/python benchmarks/engine.py --kit ../shared/bench --work /tmp/bench --s3
    .venv/bin/python benchmarks/engine.py --kit ../shared/bench --work /tmp/big --mib 4096 --alone

The kit (`gen_dataset.py`, `peers.py`) makes the tree, edits 3 % of it, rotates the order of the
programs and compares every restored tree with its source; this file only says how `kryonix` is
called. Figures are medians; CPU seconds and peak memory are the kernel's for the whole process.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from boundless import NAME, boundless_tiers

KRYONIX = Path(sys.executable).with_name("kryonix")
PASSPHRASE = "bench-passphrase-not-a-secret"


def peer(tiers: Path, *, s3: bool) -> dict[str, object]:
    """How the kit calls `kryonix`; its words in braces are filled in by the kit."""
    command = shlex.quote(str(KRYONIX))
    region = "s3://{s3_bucket}?endpoint={s3}&region=us-east-1" if s3 else "file://{repo}"
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
        "init": f"{command} tenant add bench --tier {NAME} --region 'primary={region}'"
        " --source 'tree=files://{tree}'",
        "backup": f"{command} backup bench --kind incremental",
        "restore": f"{command} restore bench --to 'tree=files://{{target}}'",
        "check": f"{command} verify bench --level data",
        "prune": "true",
    }


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
    tiers = boundless_tiers(options.work.resolve() / "tiers")
    spec = options.work / "kryonix.json"
    spec.write_text(json.dumps(peer(tiers, s3=options.s3), indent=1))
    peers = "" if options.alone else "restic-s3" if options.s3 else "restic,borg"
    results = options.work / "results.json"
    words = [
        sys.executable, str(options.kit / "peers.py"), "run", "--work", str(options.work),
        "--mib", str(options.mib), "--reps", str(options.reps), "--peers", peers,
        "--peer-json", str(spec), "--out", str(results),
    ]  # fmt: skip
    for folder in [*options.bin_dir, str(KRYONIX.parent)]:
        words += ["--bin-dir", folder]
    if options.restore_dir:
        words += ["--restore-dir", options.restore_dir]
    return subprocess.run(words, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
