"""`kryonix keys`: every command as text and as JSON, wrong usage, and never a secret."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kryonix_backup.errors import (
    ConfigError,
    KeyRefused,
    KeyUnusable,
    KryonixError,
    SecretMissing,
    TenantUnknown,
    UsageError,
)
from tests.cli.conftest import Outcome, Terminal

PHRASE = "correct horse battery staple"
ESCROW_PASSWORD = "the password of the escrow key"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=3072)


def _keys(kryonix: Terminal, *words: str) -> Outcome:
    return kryonix("keys", "acme", *words)


def _epochs(kryonix: Terminal) -> list[tuple[int, str]]:
    rows = _keys(kryonix, "show", "--json").json["keys"]
    return [(row["epoch"], row["state"]) for row in rows if row["purpose"] == "data"]


def _refused(outcome: Outcome, error: type[KryonixError], *words: str) -> None:
    assert outcome.code == error.exit_code, outcome.err
    assert "Traceback" not in outcome.err
    assert "unexpected" not in outcome.err
    assert "next: " in outcome.err
    for word in words:
        assert word in outcome.err, outcome.err


def _new_key(kryonix: Terminal, monkeypatch: pytest.MonkeyPatch, name: str = "new") -> Path:
    path = kryonix.root / name
    path.write_bytes(os.urandom(32))
    monkeypatch.setenv("KRYONIX_NEW_KEY_FILE", str(path))
    return path


def _use(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("KRYONIX_KEY_FILE", str(path))
    monkeypatch.delenv("KRYONIX_NEW_KEY_FILE", raising=False)


def _pem(encryption: KeySerializationEncryption) -> bytes:
    return RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _public() -> bytes:
    return RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def shares(backed_up: Terminal) -> list[str]:
    """An escrow, 2 of 3."""
    made = _keys(backed_up, "escrow", "--shares", "2/3", "--into", str(backed_up.root / "escrow"))
    assert made.code == 0, made.err
    return sorted(str(path) for path in (backed_up.root / "escrow").iterdir())


# ---------------------------------------------------------------------- every command


@pytest.fixture
def secrets(
    backed_up: Terminal, shares: list[str], caplog: pytest.LogCaptureFixture
) -> Iterator[set[str]]:
    """What must be in no output and no log of a test."""
    caplog.set_level(logging.DEBUG)
    found = {PHRASE, ESCROW_PASSWORD, bytes(range(32)).hex()}
    for share in shares:
        words = Path(share).read_text().split()
        found |= {" ".join(words[4:8]), " ".join(words[-6:])}
    found |= {line for line in _pem(NoEncryption()).decode().splitlines() if len(line) > 60}
    yield found
    for word in found:
        assert word not in caplog.text


@pytest.mark.parametrize("as_json", [False, True])
def test_every_command_answers_in_both_forms_and_tells_no_secret(
    backed_up: Terminal,
    shares: list[str],
    secrets: set[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    as_json: bool,
) -> None:
    (backed_up.root / "public.pem").write_bytes(_public())
    (backed_up.root / "private.pem").write_bytes(
        _pem(BestAvailableEncryption(ESCROW_PASSWORD.encode()))
    )
    monkeypatch.setenv("KRYONIX_ESCROW_PASSWORD", ESCROW_PASSWORD)
    first, third = shares[0], shares[2]
    commands = [
        ("show",),
        ("rotate", "--dry-run"),
        ("rotate",),
        ("rotate-data", "--prepare"),
        ("rotate-data",),
        ("rotate-archive",),
        ("settle",),
        ("state", "1", "suspended"),
        ("state", "1", "decrypt-only"),
        ("state", "1", "compromised"),
        ("reseal", "1", "--dry-run"),
        ("reseal", "1"),
        ("recover", "--share", first, "--share", third),
        ("escrow", "--rsa", str(backed_up.root / "public.pem")),
        ("recover", "--escrow-key", str(backed_up.root / "private.pem")),
        ("escrow", "--remove"),
        ("escrow", "--shares", "2/2", "--into", str(backed_up.root / "another")),
        ("destroy", "--confirm", "acme"),
    ]
    for words in commands:
        outcome = _keys(backed_up, *words, "--verbose", *(["--json"] if as_json else []))
        assert outcome.code == 0, (words, outcome.err)
        if as_json:
            assert outcome.json["tenant"] == "acme", words
        else:
            assert outcome.out.strip()
        said = outcome.out + outcome.err
        assert "Traceback" not in said
        for secret in secrets:
            assert secret not in said, words
        if words[0] == "escrow" and "--shares" in words:
            for path in (backed_up.root / "another").iterdir():
                assert " ".join(path.read_text().split()[-6:]) not in said


def test_show_says_what_is_there_and_what_is_due(backed_up: Terminal) -> None:
    outcome = _keys(backed_up, "show")

    assert outcome.out.startswith("tenant acme: keyring 1, wrapped for key-file\n")
    for purpose in ("data", "id", "audit"):
        assert purpose in outcome.out
    assert "data key due" in outcome.out


def test_rotate_says_what_is_due_and_does_what_it_can(backed_up: Terminal) -> None:
    (path,) = (backed_up.root / "acme-primary" / "keys").rglob("00000001")

    settings = backed_up("tenant", "show", "acme", "--json").json
    assert settings["keys"]["data_days"] is None, "what its tier says"
    dry = _keys(backed_up, "rotate", "--dry-run", "--json")
    done = _keys(backed_up, "rotate", "--json")

    assert (dry.json["due"], done.json["rotated"]) == ([], [])
    assert "due now" not in _keys(backed_up, "show").out
    assert path.exists(), "nothing was due, so nothing was written"


def test_a_new_epoch_and_an_old_snapshot(backed_up: Terminal) -> None:
    assert _keys(backed_up, "rotate-data").code == 0
    assert _epochs(backed_up) == [(1, "decrypt-only"), (2, "active")]
    (backed_up.root / "files" / "more").write_bytes(os.urandom(1000))
    assert backed_up("backup", "acme").code == 0

    assert backed_up("verify", "acme", "--level", "data").code == 0


# ---------------------------------------------------------------------- wrong usage


WRONG = [
    (),
    ("rotate-everything",),
    ("state", "1"),
    ("state", "1", "destroyed"),
    ("state", "1", "pre-active"),
    ("escrow",),
    ("escrow", "--shares", "2/3"),
    ("escrow", "--into", "x"),
    ("escrow", "--shares", "three of five", "--into", "x"),
    ("escrow", "--shares", "2/3", "--into", "x", "--remove"),
    ("escrow", "--rsa", "/nowhere/key.pem"),
    ("recover",),
    ("recover", "--second"),
    ("recover", "--share", "/nowhere/share"),
    ("recover", "--share", "/"),
    ("recover", "--share", "/dev/zero"),
    ("recover", "--escrow-key", "/dev/zero"),
    ("recover", "--share", "a", "--escrow-key", "b"),
    ("recover", "--region", "a=file:///x", "--region", "a=file:///y", "--second"),
    ("move",),
    ("rotate-master",),
    ("destroy",),
    ("destroy", "--confirm", "ACME"),
    ("destroy", "--confirm", "globex"),
]


def test_wrong_usage_is_told_and_changes_nothing(
    backed_up: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    before = _stored(backed_up)

    for words in WRONG:
        _refused(_keys(backed_up, *words), UsageError)

    assert _stored(backed_up) == before
    assert not (tmp_path / "x").exists()


def _stored(kryonix: Terminal) -> set[Path]:
    """Everything in the repository but for the records of who looked."""
    root = kryonix.root / "acme-primary"
    return {
        path.relative_to(root)
        for path in root.rglob("*")
        if path.relative_to(root).parts[0] != "audit"
    }


def test_what_is_not_there_is_named(backed_up: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    _refused(backed_up("keys", "globex", "show"), TenantUnknown, "globex")
    _refused(_keys(backed_up, "state", "9", "suspended"), KeyUnusable, "no data key '9'")
    _refused(_keys(backed_up, "reseal", "1"), KeyUnusable, "not compromised")
    splits = ("--shares", "9/3", "--into", str(backed_up.root / "x"))
    _refused(_keys(backed_up, "escrow", *splits), ConfigError, "9 of 3")
    (backed_up.root / "dsa.pem").write_bytes(
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    _refused(_keys(backed_up, "escrow", "--rsa", str(backed_up.root / "dsa.pem")), ConfigError)
    monkeypatch.delenv("KRYONIX_KEY_FILE")
    _refused(_keys(backed_up, "show"), SecretMissing)


def test_an_error_is_one_object_with_json(backed_up: Terminal) -> None:
    outcome = _keys(backed_up, "state", "9", "suspended", "--json")

    assert outcome.code == KeyUnusable.exit_code == 59
    assert outcome.json["error"]["type"] == "KeyUnusable"
    assert outcome.json["error"]["tenant"] == "acme"


# ---------------------------------------------------------------------- move


def test_after_a_move_the_new_master_opens_and_the_old_does_not(
    backed_up: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = _new_key(backed_up, monkeypatch)
    packs = {path: path.read_bytes() for path in (backed_up.root / "acme-primary/packs").rglob("*")
             if path.is_file()}  # fmt: skip

    moved = _keys(backed_up, "move", "--json")

    assert moved.json["generation"] == 2
    _refused(backed_up("snapshots", "acme"), KeyRefused)
    _use(monkeypatch, new)
    assert backed_up("verify", "acme", "--level", "data").code == 0
    assert all(path.read_bytes() == body for path, body in packs.items()), "no data is rewritten"


def test_a_move_that_was_cut_short_is_completed_by_running_it_again(
    backed_up: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = _new_key(backed_up, monkeypatch)
    folder = next(path for path in (backed_up.root / "acme-primary/keys").iterdir())
    old = (folder / "00000001").read_bytes()
    assert _keys(backed_up, "move").code == 0
    (folder / "00000001").write_bytes(old)  # as it is when it ends after the first step

    again = _keys(backed_up, "move", "--json")

    assert again.code == 0, again.err
    assert again.json["generation"] == 2, "it was completed, not done once more"
    assert [path.name for path in folder.iterdir()] == ["00000002"]
    _use(monkeypatch, new)
    assert _keys(backed_up, "show").code == 0


# ---------------------------------------------------------------------- states


def test_while_a_key_is_suspended_everything_says_so_and_afterwards_all_is_well(
    backed_up: Terminal,
) -> None:
    assert _keys(backed_up, "state", "1", "suspended").code == 0
    out = f"files={backed_up.source('out')}"
    commands = [
        ("backup", "acme"),
        ("snapshots", "acme"),
        ("verify", "acme"),
        ("verify", "acme", "--level", "data"),
        ("restore", "acme", "--to", out),
        ("catalog", "rebuild", "acme", "--region", f"primary={backed_up.url('acme-primary')}"),
    ]
    for words in commands:
        _refused(backed_up(*words), KeyUnusable, "suspended since", "state KEY active")

    assert _keys(backed_up, "state", "1", "decrypt-only").code == 0
    assert backed_up("backup", "acme").code == 0
    assert backed_up("verify", "acme", "--level", "data").code == 0
    assert backed_up("restore", "acme", "--to", out).code == 0


def test_a_compromised_key_is_told_in_costs_and_goes(backed_up: Terminal) -> None:
    assert _keys(backed_up, "state", "1", "compromised").code == 0
    cost = _keys(backed_up, "reseal", "1", "--dry-run", "--json").json["cost"]
    assert cost[0]["objects"] > 3
    assert cost[0]["bytes"] > 1000

    done = _keys(backed_up, "reseal", "1")

    assert done.code == 0, done.err
    assert done.err.startswith("to be sealed anew, of key 1:\n  primary: "), "told first"
    assert _epochs(backed_up) == [(1, "destroyed"), (2, "active")]
    assert backed_up("verify", "acme", "--level", "data").code == 0
    assert backed_up("audit", "acme", "verify").code == 0


# ---------------------------------------------------------------------- escrow and recovery


def test_shares_are_files_of_their_owner_alone_and_never_overwritten(
    backed_up: Terminal, shares: list[str]
) -> None:
    assert [Path(share).name for share in shares] == [
        f"acme-share-{number}-of-3.txt" for number in (1, 2, 3)
    ]
    folder = Path(shares[0]).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {Path(share).stat().st_mode & 0o777 for share in shares} == {0o600}
    before = [Path(share).read_bytes() for share in shares]

    _refused(
        _keys(backed_up, "escrow", "--shares", "2/3", "--into", str(folder)), ConfigError, "escrow"
    )
    assert [Path(share).read_bytes() for share in shares] == before
    assert _keys(backed_up, "show", "--json").json["escrow"] == [
        {"store": "escrow-shares", "threshold": 2, "count": 3}
    ]


def test_a_bare_machine_with_shares_alone_brings_everything_back(
    backed_up: Terminal, shares: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KRYONIX_HOME", str(tmp_path / "bare"))
    (tmp_path / "phrase").write_text(PHRASE + "\n")
    monkeypatch.delenv("KRYONIX_KEY_FILE")
    monkeypatch.setenv("KRYONIX_PASSPHRASE_FILE", str(tmp_path / "phrase"))
    region = ("--region", f"primary={backed_up.url('acme-primary')}")
    out = tmp_path / "out"
    _refused(backed_up("snapshots", "acme", *region), KeyRefused, "key-file")
    _refused(_keys(backed_up, "recover", *region, "--share", shares[0]), KeyRefused, "1 shares")

    recovered = _keys(
        backed_up, "recover", *region, "--share", shares[2], "--share", shares[0], "--json"
    )

    assert recovered.code == 0, recovered.err
    assert recovered.json["recipients"] == ["passphrase", "escrow-shares"]
    shown = _keys(backed_up, "show", *region)
    assert shown.code == 0, shown.err
    assert "wrapped for passphrase, escrow-shares" in shown.out
    restored = backed_up("restore", "acme", *region, "--to", f"files=files://{out}")
    assert restored.code == 0, restored.err
    source = backed_up.root / "files"
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    assert len(files) == 2
    for path in files:
        assert (out / path).read_bytes() == (source / path).read_bytes()


@pytest.mark.parametrize("password", ["", ESCROW_PASSWORD])
def test_an_rsa_key_recovers_with_its_password_and_without_another(
    backed_up: Terminal, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    (backed_up.root / "public.pem").write_bytes(_public())
    private = backed_up.root / "private.pem"
    kind = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    private.write_bytes(_pem(kind))
    assert _keys(backed_up, "escrow", "--rsa", str(backed_up.root / "public.pem")).code == 0
    _use(monkeypatch, _new_key(backed_up, monkeypatch))
    words = ("recover", "--escrow-key", str(private))
    if password:
        _refused(_keys(backed_up, *words), KeyRefused, "KRYONIX_ESCROW_PASSWORD")
        monkeypatch.setenv("KRYONIX_ESCROW_PASSWORD", "another")
        _refused(_keys(backed_up, *words), KeyRefused)
    monkeypatch.setenv("KRYONIX_ESCROW_PASSWORD", password)

    assert _keys(backed_up, *words).code == 0
    assert backed_up("verify", "acme", "--level", "data").code == 0


def test_an_escrow_that_was_removed_recovers_nothing(
    backed_up: Terminal, shares: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _keys(backed_up, "escrow", "--remove").code == 0
    _use(monkeypatch, _new_key(backed_up, monkeypatch))

    given = ("--share", shares[0], "--share", shares[1])
    _refused(_keys(backed_up, "recover", *given), KeyRefused, "escrow-shares")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 60_000, b"\xff\xfe words", b"academic " * 33, b"word\n" * 10_000, b"%s %n {}"],
)
def test_a_share_that_is_none_is_refused(
    backed_up: Terminal, shares: list[str], content: bytes
) -> None:
    Path(shares[1]).write_bytes(content)

    outcome = _keys(backed_up, "recover", "--share", shares[0], "--share", shares[1], "--verbose")

    assert outcome.code == KeyRefused.exit_code
    assert " ".join(Path(shares[0]).read_text().split()[-6:]) not in outcome.out + outcome.err
    assert len(outcome.err) < 20_000


# ---------------------------------------------------------------------- the end


def test_destroy_needs_the_tenants_id_and_then_nothing_opens(backed_up: Terminal) -> None:
    _refused(_keys(backed_up, "destroy", "--confirm", "acme "), UsageError, "nothing was destroyed")
    assert backed_up("snapshots", "acme").code == 0

    outcome = _keys(backed_up, "destroy", "--confirm", "acme")

    assert outcome.code == 0, outcome.err
    assert "the keys of tenant acme are destroyed" in outcome.out
    assert "primary: opens no more; 1 removed" in outcome.out
    assert "note: A bucket that keeps versions" in outcome.out
    record = json.loads(Path(os.environ["KRYONIX_HOME"], "destroyed", "acme.json").read_text())
    assert record["complete"] is True
    assert record["regions"][0]["opened_before"] is True
    out = f"files={backed_up.source('out')}"
    for words in (
        ("snapshots", "acme"),
        ("restore", "acme", "--to", out),
        ("backup", "acme"),
        ("verify", "acme"),
        ("keys", "acme", "show"),
        ("keys", "acme", "rotate-data"),
        ("catalog", "rebuild", "acme", "--region", f"primary={backed_up.url('acme-primary')}"),
    ):
        _refused(backed_up(*words), KeyUnusable, "destroyed")
    assert not (backed_up.root / "out").exists()
    assert _keys(backed_up, "destroy", "--confirm", "acme").code == 0, "it may be run again"


@pytest.mark.parametrize("away", ["primary", "west"])
def test_a_region_that_is_away_is_exit_1_and_the_next_run_completes(
    kryonix: Terminal, away: str
) -> None:
    regions = [f"--region={name}={kryonix.url(name)}" for name in ("primary", "west")]
    files = f"files={kryonix.source('files')}"
    assert kryonix("tenant", "add", "acme", *regions, "--source", files).code == 0
    place, moved = kryonix.root / away, kryonix.root / "moved"
    place.rename(moved)  # as a disk that is not mounted

    outcome = _keys(kryonix, "destroy", "--confirm", "acme", "--json")

    assert outcome.code == 1, outcome.out
    assert outcome.json["complete"] is False
    opens = {region["region"]: region["opens"] for region in outcome.json["regions"]}
    assert opens == {"primary": False, "west": False, away: None}
    assert not place.exists()
    moved.rename(place)
    again = _keys(kryonix, "destroy", "--confirm", "acme")
    assert again.code == 0, again.out
    assert f"{away}: opens no more; 1 removed" in again.out
    assert not list(place.glob("keys/*/*"))
