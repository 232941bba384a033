"""
Key stores on this machine, for tests and benchmarks.

SoftHSM is an HSM in software with the real interface. For AWS KMS there is no real server to run:
moto's is a mock, which decrypts with keys that are disabled or await deletion and knows no
policies. So it proves how we speak to a KMS and what we refuse by ourselves, never what Amazon
enforces.
"""

from __future__ import annotations

import contextlib
import os
import pty
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kryonix_backup.settings import KeyStoreSettings, RootKey, Secret
from kryonix_backup.testing.s3_servers import (
    REGION,
    Credentials,
    S3Server,
    find_program,
    free_ports,
    start_server,
)

_MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")


@dataclass(frozen=True)
class SoftHsm:
    """A folder of tokens; ``config`` is for the variable ``SOFTHSM2_CONF``."""

    module: str
    config: Path

    def make_token(self, label: str) -> HsmToken:
        """A new token with a PIN that nobody else has; it is no program's argument."""
        pin, officer = secrets.token_hex(8), secrets.token_hex(8)
        controller, terminal = pty.openpty()
        try:
            words = ["softhsm2-util", "--init-token", "--free", "--label", label]
            with subprocess.Popen(
                words,
                stdin=terminal,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "SOFTHSM2_CONF": str(self.config)},
                start_new_session=True,
            ) as process:
                os.write(controller, "".join(f"{word}\n" * 2 for word in (officer, pin)).encode())
                said, _ = process.communicate(timeout=60)
        finally:
            os.close(controller)
            os.close(terminal)
        if process.returncode:
            raise RuntimeError(f"softhsm2-util made no token: {said!r}")
        return HsmToken(f"pkcs11://{self.module}?token={label}", pin)


@dataclass(frozen=True)
class HsmToken:
    """A token's URL and PIN."""

    url: str
    pin: str = field(repr=False)

    @property
    def root(self) -> RootKey:
        """The root key of a tenant whose master is in this token."""
        return RootKey(store=KeyStoreSettings(self.url, pin=Secret(self.pin)))

    def environment(self) -> dict[str, str]:
        """The variables that name this token and its PIN."""
        return {"KRYONIX_KEY_STORE": self.url, "KRYONIX_PIN": self.pin}


def make_softhsm(folder: Path) -> SoftHsm:
    """SoftHSM with its tokens in ``folder``; raises RuntimeError where it is not installed."""
    module = next((path for path in _MODULES if Path(path).exists()), None)
    if module is None:
        raise RuntimeError("SoftHSM is missing: apt-get install softhsm2")
    (folder / "tokens").mkdir(parents=True)
    config = folder / "softhsm2.conf"
    config.write_text(
        f"directories.tokendir = {folder / 'tokens'}\n"
        "objectstore.backend = file\nlog.level = ERROR\n"
    )
    return SoftHsm(module, config)


@dataclass(frozen=True)
class MotoKms:
    """moto's KMS, a mock; see the module."""

    server: S3Server

    @property
    def url(self) -> str:
        """The address of a key store in it, with the alias that a tenant has by default."""
        return f"kms://?region={REGION}&endpoint={self.server.endpoint}"

    @property
    def root(self) -> RootKey:
        """The root key of a tenant whose master is in it."""
        return RootKey(store=self.settings(self.url))

    def settings(self, url: str) -> KeyStoreSettings:
        """The key store at a URL, with credentials; the mock takes any."""
        pair = self.server.root
        return KeyStoreSettings(url, None, pair.access_key_id, Secret(pair.secret_access_key))

    def environment(self) -> dict[str, str]:
        """The variables that name it and its credentials."""
        pair = self.server.root
        return {
            "KRYONIX_KEY_STORE": self.url,
            "KRYONIX_KMS_ACCESS_KEY_ID": pair.access_key_id,
            "KRYONIX_KMS_SECRET_ACCESS_KEY": pair.secret_access_key,
        }


@contextlib.contextmanager
def moto_kms(folder: Path) -> Iterator[MotoKms]:
    """moto's server while the block runs; raises RuntimeError where it does not start."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    command = [find_program("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with start_server(command, {}, folder, port, Credentials.new("root"), {}) as server:
        yield MotoKms(server)
