"""Logs are kept of the sources that have one, and of no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from kryonix_backup.errors import ConfigError, SourceUnprepared
from kryonix_backup.model import ChainId, LogHeader, SourceName
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


class _Away(_Logged):
    """A source whose server does not answer."""

    def new_chain(self, *, renew: bool) -> LogHeader:
        """Nobody is there."""
        raise SourceUnprepared(f"{renew}: its server does not answer")


def test_a_log_that_cannot_be_kept_holds_no_other_up_and_names_its_source(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("away", "files", "gone")
    sources = tuple(SourceSettings(SourceName(name), f"files:///{name}") for name in names)

    def source_of(settings: SourceSettings) -> Source:
        return _Logged({}) if settings.name == "files" else _Away({})

    monkeypatch.setattr(logs, "source_of", source_of)
    settings = replace(machine.settings, sources=sources)
    client = Client.onboard(settings, machine.key, env=machine.env)

    with pytest.raises(SourceUnprepared) as caught:
        client.back_up_logs()

    assert "'kryonix source prepare acme away'" in caught.value.next_step
    assert client.repository.log(SourceName("files")).chains()


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
