"""
What is between us and a server: a real forward proxy, TLS with certificates of an own authority.

Everything is on loopback. The proxy connects from an address of its own, so that a server knows who
came by it and who did not: `Relay` writes both down.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import grp
import ipaddress
import os
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kryonix_backup.testing.s3_servers import free_ports

DIRECT, BY_PROXY = "127.0.0.1", "127.0.0.2"
_START_SECONDS = 20.0


# ------------------------------------------------------------------ certificates


class Authority:
    """An authority that vouches for servers; ``bundle`` is the file with its certificate."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "encipher_only", "decipher_only"), False
        )  # fmt: skip
        self._certificate = (
            self._begun(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.bundle = folder / f"{name}.pem"
        self.bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *hosts: str) -> ssl.SSLContext:
        """What a server of these names and addresses shows."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        made = (
            self._begun(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName([_name(each) for each in hosts]), False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        file = self._folder / f"server-{made.serial_number}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _begun(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        ours = self._key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ours), critical=False)
        )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


# ------------------------------------------------------------------ in front of a server


class Relay:
    """
    Passes connections on to a server, ends TLS before it, and writes down who came.

    ``peers`` has the address of each connection that brought a byte which the server could read.
    """

    def __init__(self, upstream: str, context: ssl.SSLContext | None = None) -> None:
        there = urlsplit(upstream)
        assert there.hostname
        assert there.port
        self.upstream, self.context = (there.hostname, there.port), context
        self.peers: list[str] = []
        self.received = 0
        self._server = _Server(("127.0.0.1", 0), _Connection)
        self._server.relay = self
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()

    @property
    def endpoint(self) -> str:
        scheme = "https" if self.context else "http"
        return f"{scheme}://127.0.0.1:{self.port}"

    def forget(self) -> None:
        """Begin to write down anew."""
        self.peers.clear()
        self.received = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    relay: Relay

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that refuses our certificate is what some tests are about."""


class _Connection(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        context, ours = self.server.relay.context, self.request
        if context is not None:
            ours = context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
        with ours:
            if context is not None:
                ours.do_handshake()
            if first := ours.recv(1 << 16):
                self._pass_on(first, ours)

    def _pass_on(self, first: bytes, ours: socket.socket) -> None:
        relay = self.server.relay
        relay.peers.append(self.client_address[0])
        with socket.create_connection(relay.upstream) as theirs:
            back = threading.Thread(target=self._copy, args=(theirs, ours, b""), daemon=True)
            back.start()
            self._copy(ours, theirs, first)
            back.join()

    def _copy(self, source: socket.socket, target: socket.socket, piece: bytes) -> None:
        received = bool(piece)
        with contextlib.suppress(OSError):
            piece = piece or source.recv(1 << 16)
            while piece:
                self.server.relay.received += len(piece) * received
                target.sendall(piece)
                piece = source.recv(1 << 16)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


# ------------------------------------------------------------------ a forward proxy


@dataclass
class ForwardProxy:
    """A running tinyproxy, which connects from `BY_PROXY`, and wants a login where it has one."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]
    login: tuple[str, str] | None = field(default=None, repr=False)

    def requests(self) -> list[str]:
        """The first line of every request that it was sent."""
        lines = self.log.read_text().splitlines()
        return [line.partition("): ")[2] for line in lines if "Request (file descriptor" in line]

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_proxy(folder: Path, login: tuple[str, str] | None = None) -> ForwardProxy:
    """Tinyproxy with its log in ``folder``; raises RuntimeError where it does not start."""
    program = shutil.which("tinyproxy")
    if program is None:
        raise RuntimeError("tinyproxy is missing: apt-get install tinyproxy-bin")
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    log, config = folder / "proxy.log", folder / "tinyproxy.conf"
    lines = [
        f"User {getpass.getuser()}", f"Group {grp.getgrgid(os.getgid()).gr_name}",
        "Listen 127.0.0.1", f"Port {port}", f"Bind {BY_PROXY}", "Timeout 60", "MaxClients 64",
        f'LogFile "{log}"', "LogLevel Connect", "Allow 127.0.0.1", "DisableViaHeader Yes",
    ]  # fmt: skip
    if login is not None:
        lines.append("BasicAuth {} {}".format(*login))
    config.write_text("\n".join(lines) + "\n")
    process = subprocess.Popen(
        [program, "-d", "-c", str(config)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    proxy = ForwardProxy(f"http://127.0.0.1:{port}", log, process, login)
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return proxy
        time.sleep(0.02)
    raise RuntimeError(f"tinyproxy did not start; see {log}")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that no machine knows."""
    return Authority(tmp_path_factory.mktemp("authority"), "kryonix-test-authority")


@pytest.fixture(scope="session")
def forward_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForwardProxy]:
    """A proxy that lets everybody of this machine in."""
    with start_proxy(tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def closed_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForwardProxy]:
    """A proxy that wants a login."""
    folder = tmp_path_factory.mktemp("closed-proxy")
    with start_proxy(folder, ("backup", "pass-w0rd")) as proxy:
        yield proxy
