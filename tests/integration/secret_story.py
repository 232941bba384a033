"""
Everything that uses a secret, done through both doors while somebody looks on.

Tenants acme (HSM, bucket, files and a database) and beta (passphrase, directory) are served by the
`kryonix` command, gamma and delta, made alike, by flows on a local Prefect server.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kryonix_backup.settings import TenantSettings
from kryonix_backup.tenancy.registry import Registry
from kryonix_backup.tenancy.tiers import SHIPPED
from kryonix_backup.testing.key_stores import HsmToken, SoftHsm
from kryonix_backup.testing.postgres import PostgresServer
from kryonix_backup.testing.s3_servers import S3Server
from tests.integration.command import KRYONIX
from tests.integration.watching import Watch
from tests.services.postgres import is_followed

_PATIENCE_S = 150.0
USER = "guarded"


def _word(kind: str) -> str:
    return f"{kind} {secrets.token_hex(10)}/+"


@dataclass
class Story:
    """Where it happens, with which secrets, and what came of it."""

    root: Path
    s3: S3Server
    postgres: PostgresServer
    tokens: Mapping[str, HsmToken]
    watch: Watch
    words: dict[str, str] = field(
        default_factory=lambda: {
            "beta's passphrase": _word("beta"),
            "beta's second passphrase": _word("beta2"),
            "delta's passphrase": _word("delta"),
            "delta's second passphrase": _word("delta2"),
            "database password": secrets.token_hex(12),
            "wrong passphrase": _word("wrong"),
            "wrong PIN": secrets.token_hex(8),
            "wrong S3 secret": secrets.token_hex(20),
            "wrong database password": secrets.token_hex(12),
        },
        repr=False,
    )
    """Secrets that people type, by name."""

    raw: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Secrets that are bytes."""

    said: dict[str, str] = field(default_factory=dict)
    """All output of every command, by its words."""

    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each run that was to fail said of itself."""

    cores: list[str] = field(default_factory=list)
    """The limits of the sizes of cores, of processes that had keys open."""

    @property
    def home(self) -> Path:
        """``$KRYONIX_HOME``."""
        return self.root / "home"

    def tell(self) -> None:
        """Let it happen: both doors at once."""
        self._prepare()
        with ThreadPoolExecutor(2) as pool:
            for each in [pool.submit(self._by_command), pool.submit(self._by_flows)]:
                each.result()

    # ------------------------------------------------------------------ before

    def _prepare(self) -> None:
        self.raw["beta's key file"] = secrets.token_bytes(32)
        self.words |= {f"{name}'s PIN": token.pin for name, token in self.tokens.items()}
        self.words["operator's S3 secret"] = self.s3.root.secret_access_key
        for name in ("home", "tmp", "user", "given"):
            (self.root / name).mkdir(mode=0o700)
        self._give("beta.key", self.raw["beta's key file"])
        self._give("gamma.pin", self.words["gamma's PIN"])
        for door in ("command", "flows"):
            self._give_password(door, "database password")
        tiers = yaml.load(SHIPPED.read_text(), yaml.BaseLoader)
        only = {"default": "standard", "tiers": {"standard": tiers["tiers"]["standard"]}}
        (self.root / "tiers.yaml").write_text(yaml.safe_dump(only))
        with self.postgres.connect() as connection:
            connection.execute(
                f"create role {USER} superuser login password"
                f" '{self.words['database password']}'".encode()
            )
            for name in ("acme", "gamma"):
                connection.execute(f"create database {name}".encode())
        rules = self.postgres.data / "pg_hba.conf"
        rules.write_text(f"host all {USER} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        self.postgres.run("psql", "-c", "select pg_reload_conf()")
        for name in ("acme", "gamma"):
            with self.postgres.connect(name) as connection:
                connection.execute("create table t (a int primary key, b text)")
                connection.execute("insert into t select n, 'row' from generate_series(1, 100) n")
        for name in ("acme", "beta", "gamma", "delta"):
            (self.root / "source" / name).mkdir(parents=True)
            (self.root / "source" / name / "letter.txt").write_text(f"dear {name}\n" * 500)

    def _give(self, name: str, content: str | bytes) -> Path:
        path = self.root / "given" / name
        path.touch(mode=0o600)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def _give_password(self, door: str, name: str) -> None:
        self._give(f"{door}.pgpass", f"127.0.0.1:*:*:{USER}:{self.words[name]}\n")

    def environment(self, door: str) -> dict[str, str]:
        """What the processes of a door are given."""
        ours = ("KRYONIX_", "AWS_", "PREFECT_", "PG")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        given = self.root / "given"
        secret = {
            "KRYONIX_ACME_PIN": self.words["acme's PIN"],
            "KRYONIX_BETA_PASSPHRASE": self.words["beta's passphrase"],
            "KRYONIX_GAMMA_PIN_FILE": str(given / "gamma.pin"),
            "KRYONIX_DELTA_PASSPHRASE": self.words["delta's passphrase"],
            "KRYONIX_PRIMARY_ADMIN_ACCESS_KEY_ID": self.s3.root.access_key_id,
            "KRYONIX_PRIMARY_ADMIN_SECRET_ACCESS_KEY": self.s3.root.secret_access_key,
            "PGPASSFILE": str(given / f"{door}.pgpass"),
        }
        return {
            **kept,
            **secret,
            "HOME": str(self.root / "user"),
            "TMPDIR": str(self.root / "tmp"),
            "KRYONIX_HOME": str(self.home),
            "KRYONIX_TIERS": str(self.root / "tiers.yaml"),
            "PREFECT_LOGGING_LEVEL": "DEBUG",
        }

    def settings(self, name: str) -> TenantSettings:
        """A tenant as it is registered first."""
        sources = [{"name": "docs", "url": f"files://{self.root}/source/{name}"}]
        if name not in self.tokens:
            url, keys = f"file://{self.root}/{name}-repository", {}
        else:
            url = self.s3.url(f"secrets-{name}")
            keys = {"store": self.tokens[name].url}
            sources.append({"name": "db", "url": self.postgres.url(name, USER)})
        return TenantSettings.from_plain(
            {
                "id": name,
                "tier": "standard",
                "regions": [{"name": "primary", "url": url}],
                "sources": sources,
                "keys": keys,
            }
        )

    # ------------------------------------------------------------------ running

    def run(self, *words: str, door: str = "command", fails: str = "", **env: str) -> Any:
        """One command to its end, as verbose as it can be; what it answered."""
        process = self._start(words, door, env)
        try:
            out, err = process.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{words} hangs: {out}{err}{self.logs()}") from None
        return self._ended(words, process.returncode, out, err, fails)

    def _start(
        self, words: tuple[str, ...], door: str, env: Mapping[str, str]
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["env", "--default-signal=INT", KRYONIX, *words, "--json", "--verbose"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**self.environment(door), **env}, cwd="/", start_new_session=True,
        )  # fmt: skip
        self.watch.add(process.pid)
        return process

    def _ended(self, words: tuple[str, ...], code: int, out: str, err: str, fails: str) -> Any:
        self.said[f"{len(self.said)} {' '.join(words)}"] = out + err
        assert bool(code) == bool(fails), f"{words} -> {code}: {out}{err}{self.logs()}"
        answer = json.loads(out)
        if fails:
            self.failures[fails] = answer
        return answer

    def logs(self) -> str:
        """The end of every log of the local server."""
        logs = sorted((self.home / "prefect").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in logs)

    def _core_of(self, pid: int) -> None:
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        self.cores += [line for line in limits if line.startswith("Max core file size")]

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _PATIENCE_S
        while not holds():
            assert time.monotonic() < end, f"{what}: {self.logs()}"
            time.sleep(0.1)

    def kept(self, name: str) -> Path:
        """The file with the tenant's key pair."""
        return self.home / "credentials" / name / "primary"

    def _note_pair(self, name: str, when: str = "") -> None:
        pair = json.loads(self.kept(name).read_text())
        self.words[f"{name}'s S3 secret{when}"] = pair["secret_access_key"]

    def _spoil_pair(self, name: str) -> str:
        before = self.kept(name).read_text()
        wrong = {**json.loads(before), "secret_access_key": self.words["wrong S3 secret"]}
        self.kept(name).write_text(json.dumps(wrong))
        return before

    # ------------------------------------------------------------------ the doors

    def _by_command(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            for each in [pool.submit(self._acme), pool.submit(self._beta)]:
                each.result()
        self.run("doctor", fails="doctor")

    def _add(self, name: str) -> None:
        path = self.root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(self.settings(name).to_plain()))
        self.run("tenant", "add", name, "--file", str(path))

    def _acme(self) -> None:
        self._add("acme")
        self._note_pair("acme", " before its rotation")
        self.run("tenant", "isolate", "acme", "--rotate")
        self._note_pair("acme")
        self.run("source", "prepare", "acme", "db", "--replica-identity-full")
        self.run("backup", "acme")
        self._follow()
        self.run("keys", "acme", "rotate-data")
        self.run("keys", "acme", "rotate-master")
        self.run("backup", "acme", "--kind", "incremental")
        to = ["--to", f"docs=files://{self.root}/back/acme"]
        to += ["--to", f"db={self.postgres.url('acme_then', USER)}"]
        self.run("restore", "acme", *to)
        self.run("backup", "acme", fails="wrong PIN", KRYONIX_ACME_PIN=self.words["wrong PIN"])
        before = self._spoil_pair("acme")
        self.run("backup", "acme", fails="wrong S3 secret")
        self.kept("acme").write_text(before)
        self._give_password("command", "wrong database password")
        self.run("backup", "acme", "--source", "db", fails="wrong database password")

    def _follow(self) -> None:
        words = ("backup", "acme", "--kind", "log", "--follow")
        process = self._start(words, "command", {})
        self._until(lambda: is_followed(self.postgres, "acme"), "acme is not followed")
        self._core_of(process.pid)
        with self.postgres.connect("acme") as connection:
            connection.execute("insert into t values (1000, 'followed')")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=_PATIENCE_S)
        self._ended(words, process.returncode, out, err, "")

    def _beta(self) -> None:
        first, second = (self.words[f"beta's {each}passphrase"] for each in ("", "second "))
        by_file = {
            "KRYONIX_BETA_PASSPHRASE": "",
            "KRYONIX_BETA_KEY_FILE": str(self.root / "given/beta.key"),
        }
        self._add("beta")
        self.run("backup", "beta")
        wrong = self.words["wrong passphrase"]
        self.run("backup", "beta", fails="wrong passphrase", KRYONIX_BETA_PASSPHRASE=wrong)
        self.run("keys", "beta", "rotate-data")
        shares = self.root / "shares"
        self.run("keys", "beta", "escrow", "--shares", "2/3", "--into", str(shares))
        given = [path for path in sorted(shares.iterdir()) if path.is_file()]
        for number, path in enumerate(given):
            self.words[f"share {number}"] = path.read_text().strip()
        new = {"KRYONIX_NEW_KEY_FILE": by_file["KRYONIX_BETA_KEY_FILE"]}
        self.run("keys", "beta", "move", **new)
        self.run("backup", "beta", "--kind", "incremental", **by_file)
        two = [word for path in given[:2] for word in ("--share", str(path))]
        self.run("keys", "beta", "recover", *two, KRYONIX_BETA_PASSPHRASE=second)
        recovered = {"KRYONIX_BETA_PASSPHRASE": second}
        self.run("restore", "beta", "--to", f"docs=files://{self.root}/back/beta", **recovered)
        one = ["--share", str(given[0])]
        self.run("keys", "beta", "recover", *one, fails="too few shares")
        assert first != second

    def _by_flows(self) -> None:
        for name in ("gamma", "delta"):
            Registry.at(self.environment("flows")).add(self.settings(name))
        up = self.run("up", door="flows")
        for pid in (up["pid"], *(worker["pid"] for worker in up["workers"])):
            self._core_of(pid)
        with ThreadPoolExecutor(2) as pool:
            for each in [pool.submit(self._gamma), pool.submit(self._delta)]:
                each.result()

    def flow(self, name: str, tenant: str, *words: str, fails: str = "") -> Any:
        """A flow, watched to its end."""
        return self.run("flow", name, tenant, *words, "--watch", door="flows", fails=fails)

    def _gamma(self) -> None:
        self.flow("onboard", "gamma")
        self._note_pair("gamma")
        self.run("deploy", "gamma", door="flows")
        self.run("source", "prepare", "gamma", "db", "--replica-identity-full", door="flows")
        self.flow("backup", "gamma")
        self.run("flow", "follow", "gamma", door="flows")
        self.flow("keys", "gamma")
        to = {"docs": f"files://{self.root}/back/gamma"}
        to |= {"db": self.postgres.url("gamma_then", USER)}
        self.flow("restore", "gamma", f"to={json.dumps(to)}")
        self._until(lambda: is_followed(self.postgres, "gamma"), "gamma is not followed")
        self._give("gamma.pin", self.words["wrong PIN"])
        self.flow("backup", "gamma", fails="wrong PIN in a flow")
        self._give("gamma.pin", self.words["gamma's PIN"])
        self._give_password("flows", "wrong database password")
        self.flow("backup", "gamma", 'sources=["db"]', fails="wrong database password in a flow")
        before = self._spoil_pair("gamma")
        self.run("deploy", "gamma", door="flows")
        self.flow("backup", "gamma", fails="wrong S3 secret in a flow")
        self.kept("gamma").write_text(before)

    def _delta(self) -> None:
        self.flow("onboard", "delta")
        self.flow("backup", "delta")
        # The workers know the first one alone.
        second = self.words["delta's second passphrase"]
        self.run("keys", "delta", "move", door="flows", KRYONIX_NEW_PASSPHRASE=second)
        self.flow("backup", "delta", fails="wrong passphrase in a flow")


def two_tokens(hsm: SoftHsm) -> dict[str, HsmToken]:
    """A token for each of the tenants that have one."""
    return {name: hsm.make_token(f"{name} secrets") for name in ("acme", "gamma")}
