"""Logs are kept of the sources that have one, and of no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kryonix_backup.errors import ConfigError
from kryonix_backup.model import ChainId, LogHeader
from kryonix_backup.sdk import logs
from kryonix_backup.sdk.client import Client, LogReport
from kryonix_backup.settings import SourceSettings
from kryonix_backup.sources.source import LogPiece, LogStream, Source
from kryonix_backup.testing.sources import MemorySource
from tests.sdk.conftest import Machine


class _Idle:
    def pieces(self, until: Callable[[], bool], every: float) -> Iterator[LogPiece]:
        """Nothing happens."""
        assert until()
        assert every
        return iter(())

    def confirm(self, end: int) -> None:
        """Nothing to confirm."""


class _Logged(MemorySource):
    """A source with a log in which nothing happens."""

    def new_chain(self, *, renew: bool) -> LogHeader:
        """An empty one."""
        assert not renew
        return LogHeader(ChainId(""), 0, 1, 1, None, None, None, 0, 0)

    @contextmanager
    def follow(self, opening: LogHeader, last: LogHeader) -> Iterator[LogStream]:
        """Nothing follows."""
        assert opening == last
        yield _Idle()


@pytest.fixture
def client(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Client:
    def source_of(settings: SourceSettings) -> Source:
        return _Logged({}) if settings.name == "files" else MemorySource({})

    monkeypatch.setattr(logs, "source_of", source_of)
    return Client.onboard(machine.settings, machine.key, env=machine.env)


def test_the_logs_of_all_sources_that_have_one_are_kept(client: Client) -> None:
    reports = client.back_up_logs()

    assert list(reports) == ["files"]
    assert isinstance(reports["files"], LogReport)
    assert client.back_up_logs(["files"])["files"].chain == reports["files"].chain
    assert client.follow_log("files", every=1.0, until=lambda: True).segments == 0


def test_without_a_log_it_is_said(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "source_of", lambda _: MemorySource({}))

    with pytest.raises(ConfigError, match="none of this tenant's sources"):
        client.back_up_logs()
    with pytest.raises(ConfigError, match="source files keeps no transaction log"):
        client.follow_log("files", every=1.0, until=lambda: True)
    with pytest.raises(ConfigError):
        client.back_up_logs(["unknown"])
