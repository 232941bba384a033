"""Words that nobody means well with, in every place that takes one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from kryonix_backup.cli.main import main
from kryonix_backup.errors import (
    ConfigError,
    InvalidName,
    InvalidUrl,
    RestoreUnknown,
    SnapshotUnknown,
    SourceMissing,
    TenantUnknown,
    UsageError,
)
from tests.integration import trees
from tests.integration.command import Command

pytestmark = pytest.mark.service

NAMES = [
    "", "..", "../x", "/etc", "x" * 300, "x" * 41, "tenänt", "\N{CYRILLIC SMALL LETTER A}cme", "🔑",
    "'; DROP TABLE tenants; --", "a\nb", "a\0b", "acme\n", " acme", "acme ", "Acme", "a_b", "-rf",
    "acme-", "a--b/../c", "%2e%2e", "$(id)", "`id`", "con.json", "a.b", "1a", "\x1b[31m", "\udcff",
]  # fmt: skip
# Every command that takes a tenant's id, with its other words.
TAKING_A_TENANT = [
    ("tenant", "add", "ID", "--region", "primary=file:///REPOSITORY", "--source", "a=files:///etc"),
    ("tenant", "show", "ID"),
    ("tenant", "remove", "ID"),
    ("backup", "ID"),
    ("snapshots", "ID"),
    ("snapshots", "ID", "--region", "primary=file:///REPOSITORY"),
    ("diff", "ID", "a"),
    ("ls", "ID"),
    ("cat", "ID", "latest", "docs/a"),
    ("restore", "ID"),
    ("restore", "ID", "--region", "primary=file:///REPOSITORY", "--to", "a=files:///REPOSITORY"),
    ("rollback", "ID", "20261123t000000z-0123456789abcdef"),
    ("verify", "ID"),
    ("catalog", "history", "ID"),
    ("catalog", "rebuild", "ID", "--region", "primary=file:///REPOSITORY"),
    ("deploy", "ID", "--dry-run"),
]


def _called(
    words: Sequence[str], capsys: pytest.CaptureFixture[str], secret: str = ""
) -> tuple[int, str]:
    """The exit code of a command in this process, and the line that it failed with."""
    code = main(list(words))
    said = capsys.readouterr()
    assert "Traceback" not in said.err, said.err
    assert "error: unexpected" not in said.err, said.err
    assert not secret or secret not in said.out + said.err
    if code:
        assert said.err.count("\n  next: ") == 1, said.err
    return code, said.err


@pytest.fixture
def passphrase(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("KRYONIX_PASSPHRASE", "never to be seen")
    return "never to be seen"


@pytest.mark.parametrize("template", TAKING_A_TENANT, ids=lambda words: "-".join(words[:2]))
def test_no_command_takes_a_hostile_tenant_id(
    template: Sequence[str], kryonix_home: Path, tmp_path: Path, passphrase: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = [word.replace("/REPOSITORY", str(tmp_path / "repository")) for word in template]
    for name in NAMES:
        meant = [name if word == "ID" else word for word in words]
        code, said = _called(meant, capsys, passphrase)
        assert code in {InvalidName.exit_code, UsageError.exit_code}, (name, said)

    assert _files(kryonix_home, tmp_path) == []


def _files(*roots: Path) -> list[Path]:
    """What is there of repositories and tenants; runs that failed leave records, and locks."""
    found = [path for root in roots for path in root.rglob("*")]
    return [path for path in found if not {"outbox", "locks"} & set(path.parts)]


@pytest.mark.parametrize("option", ["--source", "--region"])
def test_no_hostile_name_of_a_source_or_region_is_registered(
    option: str, kryonix_home: Path, tmp_path: Path, passphrase: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    region = f"primary=file://{tmp_path / 'repository'}"
    for name in NAMES:
        words = ["tenant", "add", "acme", "--region", region, option, f"{name}=files:///etc"]
        code, said = _called(words, capsys, passphrase)
        assert code in {InvalidName.exit_code, UsageError.exit_code}, (name, said)

    assert _files(kryonix_home, tmp_path) == []


REGIONS = [
    "x", "file://", "file:///", "file:////", "file://..", "file://host/dir", "file:relative",
    "file:///a\0b", "file:///dir?x=1", "file:///dir#x", "http://127.0.0.1/", "s3://", "s3://A_B",
    "s3://bucket/../other", "s3://bucket/%2e%2e/other", "s3://..", "s3://bucket?endpoint=x",
    "s3://bucket?endpoint=file:///etc/passwd", "s3://bucket?endpoint=http://", "s3://b?timeout=0",
    "s3://bucket?nonsense=1", "s3://bucket?region=../x", "ftp://x/y", "files:///etc", "🔑",
    "file:///x\ny", "s3://[", "file://[::1", "x" * 5000, "s3://" + "b" * 300,
    "file:///" + "d" * 300,
    "file:///x\ty", "file:///proc/nothing", "file:///dev/null/x", "file:///etc/passwd",
]  # fmt: skip
WITH_SECRETS = [
    "s3://AKIAX:topsecret@bucket", "s3://bucket?secret_access_key=topsecret",
    "s3://bucket?endpoint=http://me:topsecret@127.0.0.1:1", "s3://bucket?X-Amz-Signature=topsecret",
    "s3://bucket?password=topsecret",
]  # fmt: skip
SOURCES = [
    "x", "files://", "files:", "file:///etc", "files://host/etc", "files:///a\0b", "files:relative",
    "postgresql://me:topsecret@127.0.0.1/db", "files:///etc?x=1", "🔑", "files://[", "files:///x#y",
    "files://me:topsecret@host/etc", "files:///e\ntc", "files:///etc\t",
]  # fmt: skip

ADD = ("tenant", "add", "acme")


def test_no_hostile_address_of_a_region_is_registered(
    kryonix_home: Path, passphrase: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3-secret-never-told")
    monkeypatch.chdir(tmp_path)
    for url in REGIONS:
        words = [*ADD, "--region", f"primary={url}", "--source", "a=files:///srv"]
        code, said = _called(words, capsys, passphrase)
        assert code in {InvalidUrl.exit_code, *range(40, 46)}, (url, said)
        assert "s3-secret" not in said
    for url in WITH_SECRETS:
        words = [*ADD, "--region", f"primary={url}", "--source", "a=files:///srv"]
        code, said = _called(words, capsys, "topsecret")
        assert code == InvalidUrl.exit_code, (url, said)
        assert "AWS_SECRET_ACCESS_KEY" in said, "where else the secret belongs"

    assert _files(kryonix_home, tmp_path) == []


def test_no_hostile_address_of_a_source_is_registered(
    kryonix_home: Path, passphrase: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    region = f"primary=file://{tmp_path / 'repository'}"
    for url in SOURCES:
        words = ["tenant", "add", "acme", "--region", region, "--source", f"docs={url}"]
        code, said = _called(words, capsys, "topsecret")
        assert code in {InvalidUrl.exit_code, UsageError.exit_code}, (url, said)

    assert _files(kryonix_home, tmp_path) == []


@pytest.fixture
def onboarded(
    kryonix_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Path:  # fmt: skip
    """A tenant acme with one snapshot; the directory of its tree."""
    command = Command.with_key_file(kryonix_home)
    monkeypatch.setenv("KRYONIX_KEY_FILE", str(kryonix_home / "key"))
    tree = tmp_path / "tree"
    trees.grow(tree, Random(0), small=5, large_mib=1)
    region = f"primary=file://{tmp_path / 'repository'}"
    command.run("tenant", "add", "acme", "--region", region, "--source", f"docs=files://{tree}")
    command.run("backup", "acme")
    return tree


PATHS = [
    "..", "docs/..", "docs/../docs", "/etc/passwd", "docs//etc/passwd", "docs/./small", "docs/a\0b",
    "docs/" + "x" * 5000, "other", "docs/none", "docs/\udcff", "docs/🔑", "docs/small\n", "DOCS",
]  # fmt: skip


def test_paths_in_a_snapshot_are_never_paths_of_this_machine(
    onboarded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in PATHS:
        for words in (["ls", "acme", "latest", path], ["cat", "acme", "latest", path]):
            code, said = _called(words, capsys)
            assert code in {SnapshotUnknown.exit_code, SourceMissing.exit_code}, (words, said)
    code, said = _called(["cat", "acme", "latest", "docs/small"], capsys)
    assert code, said


def test_a_snapshot_is_named_by_its_id_alone(
    onboarded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for snapshot in (
        "../keys",
        "/etc/passwd",
        "",
        "..",
        "latest/..",
        "x" * 5000,
        "*",
        "🔑",
        "a\0b",
    ):
        for words in (["ls", "acme", snapshot], ["diff", "acme", snapshot]):
            code, said = _called(words, capsys)
            assert code == SnapshotUnknown.exit_code, (words, said)
            assert "See 'kryonix snapshots acme'" in said


def test_no_word_of_a_restore_leads_anywhere_else(
    onboarded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = trees.state(onboarded)
    to = f"docs=files://{tmp_path / 'out'}"
    hostile = [
        (["--snapshot", "../../etc"], SnapshotUnknown),
        (["--snapshot", "a\0b"], SnapshotUnknown),
        (["--source", "../x", "--to", to], ConfigError),
        (["--to", f"../x=files://{tmp_path / 'out'}"], ConfigError),
        (["--to", "docs=files://"], InvalidUrl),
        (["--to", "docs=file:///etc"], InvalidUrl),
        (["--to", "docs=files:///a\0b"], InvalidUrl),
        (["--include", "../../*", "--to", to], SnapshotUnknown),
        (["--include", "none", "--to", to], SnapshotUnknown),
        (["--at", "yesterday"], UsageError),
        (["--at", "2026-13-45"], UsageError),
        (["--at", "0001-01-01", "--to", to], SnapshotUnknown),
        (["--resume", "../../snapshots"], RestoreUnknown),
        (["--resume", "20261123t000000z-0123456789abcdef"], RestoreUnknown),
        (["--resume", "a\0b"], RestoreUnknown),
    ]
    for words, error in hostile:
        code, said = _called(["restore", "acme", *words], capsys)
        assert code == error.exit_code, (words, said)
    for restore in ("../../snapshots", "20261123t000000z-0123456789abcdef", "", "🔑"):
        code, said = _called(["rollback", "acme", restore], capsys)
        assert code == RestoreUnknown.exit_code, (restore, said)

    assert not (tmp_path / "out").exists()
    assert trees.state(onboarded) == before


def test_a_tenant_that_nobody_registered_is_unknown_to_every_command(
    kryonix_home: Path, passphrase: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for template in TAKING_A_TENANT:
        if template[1] in {"add", "history"} or "--region" in template:
            continue
        words = ["nobody" if word == "ID" else word for word in template]
        code, said = _called(words, capsys, passphrase)
        assert code == TenantUnknown.exit_code, (words, said)
        assert "nobody" in said
    assert _files(kryonix_home) == []
