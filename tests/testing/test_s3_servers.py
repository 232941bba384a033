from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest

from kryonix_backup.storage.registry import open_store
from kryonix_backup.storage.residency import ANYWHERE
from kryonix_backup.testing.s3_servers import (
    Credentials,
    find_program,
    free_ports,
    start_seaweedfs,
)


def test_free_ports_differ_and_can_be_bound() -> None:
    ports = free_ports(20)

    assert len(set(ports)) == 20
    for port in ports:
        for each in (port, port + 10_000):
            with socket.socket() as bound:
                bound.bind(("127.0.0.1", each))


def test_a_missing_program_says_how_to_get_it() -> None:
    with pytest.raises(FileNotFoundError, match="script/setup --dev"):
        find_program("no-such-server")


def test_credentials_do_not_show_their_secret() -> None:
    pair = Credentials.new("acme")

    assert pair.secret_access_key not in repr(pair)
    assert pair != Credentials.new("acme")
    assert pair.environment()["AWS_SECRET_ACCESS_KEY"] == pair.secret_access_key


def test_a_server_that_does_not_start_names_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "weed"
    fake.write_text("#!/bin/sh\necho 'no room'\nexit 1\n")
    fake.chmod(0o700)
    monkeypatch.setattr("kryonix_backup.testing.s3_servers.find_program", lambda name: str(fake))

    with pytest.raises(RuntimeError, match=r"server\.log"):
        start_seaweedfs(tmp_path / "data")
    assert (tmp_path / "data/server.log").read_text() == "no room\n"


@pytest.mark.service
def test_a_server_serves_until_it_is_stopped(tmp_path: Path) -> None:
    with start_seaweedfs(tmp_path / "data", ["acme-backup"]) as server:
        store = open_store(server.region("acme-backup"), {}, ANYWHERE)
        store.put("a", b"body")
        assert store.get("a") == b"body"
    server.stop()

    assert server.process.poll() is not None
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(server.endpoint, timeout=2)
