from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from kryonix_backup.errors import ConfigError, InvalidUrl
from kryonix_backup.model import Phase, RestoreId, SourceName
from kryonix_backup.settings import SourceSettings
from kryonix_backup.sources.registry import log_counter, open_source, open_target, phase_of
from kryonix_backup.testing.sources import GivenContent, items_of

RESTORE = RestoreId("20261123t214005z-0123456789abcdef")


def _settings(url: str, **more: Any) -> SourceSettings:
    return SourceSettings(SourceName("docs"), url, **more)


def test_a_source_and_a_target_are_found_by_their_scheme(tmp_path: Path) -> None:
    source = open_source(_settings(f"files://{tmp_path}"))
    target = open_target(f"files://{tmp_path}/new", RESTORE, overwrite=False)

    entries = [item.entry for item in items_of(source.dump("tree", None))]
    target.load(GivenContent((entry, iter(())) for entry in entries))
    target.commit()
    target.finish()

    assert (tmp_path / "new").is_dir()
    assert phase_of("files:///x") is Phase.FILE_STORAGE_RESTORE


@pytest.mark.parametrize("url", ["ftp://host/dir", "/dir", "", "Files", "file:///dir"])
def test_an_unknown_kind_says_which_there_are(url: str) -> None:
    for ask in (
        lambda: open_source(_settings(url)),
        lambda: open_target(url, RESTORE, overwrite=False),
        lambda: phase_of(url),
    ):
        with pytest.raises(InvalidUrl) as caught:
            ask()
        assert "files://" in caught.value.hint


def test_a_cluster_has_its_source_and_its_target_apart() -> None:
    cluster, directory = "postgresql+physical://u@host/", "pgdata:///data"

    assert open_source(_settings(cluster)).parts() == ("cluster",)
    assert open_target(directory, RESTORE, overwrite=True)
    assert phase_of(directory) is Phase.DATABASE_RESTORE
    with pytest.raises(InvalidUrl, match="no source"):
        open_source(_settings(directory))
    for ask in (lambda: open_target(cluster, RESTORE, overwrite=True), lambda: phase_of(cluster)):
        with pytest.raises(InvalidUrl, match="in place of one"):
            ask()


@pytest.mark.parametrize(
    "url",
    ["files://host/dir", "files:dir", "files:///a?b", "files:///a#b", "files://", "files:///%00"],
)
def test_an_address_that_is_no_directory_is_refused(url: str) -> None:
    with pytest.raises(InvalidUrl, match="does not name a directory"):
        open_source(_settings(url))


def test_a_pattern_without_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="'!'"):
        open_source(_settings("files:///", exclude=("a", "!")))


def test_a_log_is_read_by_the_adapter_that_wrote_it() -> None:
    count = log_counter("postgresql://postgres@localhost/db")

    assert count is not None
    assert count([]) == (0, 0)
    assert log_counter("files:///srv") is None
    assert log_counter("memory://x") is None  # of a version that is to come


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@h/db",
        "postgresql://u:hunt/er2@h/db",
        "postgresql://u@h/db?password=hunter2",
        "postgresql+physical://u:hunt#er2@h/",
        "pgdata://u:hunter2@h/",
    ],
)
def test_an_address_with_a_password_is_refused_and_not_repeated(url: str) -> None:
    for ask in (
        lambda: open_source(_settings(url)),
        lambda: open_target(url, RESTORE, overwrite=False),
        lambda: phase_of(url),
    ):
        with pytest.raises(InvalidUrl, match="holds a password") as caught:
            ask()
        assert "hunt" not in "".join(traceback.format_exception(caught.value))
