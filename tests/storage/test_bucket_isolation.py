"""A bucket is made one tenant's alone on a real server that enforces it, or not at all."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.retries.standard import ExponentialBackoff

from kryonix_backup.errors import ConfigError, StoreDenied, StoreError
from kryonix_backup.model import RegionName, TenantId
from kryonix_backup.settings import RegionSettings, Secret
from kryonix_backup.storage.bucket_isolation import BucketIsolation
from kryonix_backup.storage.credentials import S3Credentials
from kryonix_backup.storage.location import Bucket, parse_location
from kryonix_backup.storage.registry import kept_credentials, open_store
from kryonix_backup.storage.residency import Residency
from kryonix_backup.storage.s3_admin import BucketState, S3Admin
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.s3_servers import S3Server
from tests.services.s3_proxy import AnswerLost, S3Proxy

pytestmark = pytest.mark.service

ACME, BETA = TenantId("acme"), TenantId("beta")
_numbers = itertools.count()


class Place:
    """A bucket of a server that nobody has used, and the ways to it."""

    def __init__(self, server: S3Server, home: Path) -> None:
        self.server = server
        self.url = server.url(f"isolated-{next(_numbers)}")
        self.region = RegionSettings(RegionName("primary"), self.url)
        self.env = {"KRYONIX_HOME": str(home)}
        pair = server.root
        self.operator = S3Credentials(pair.access_key_id, Secret(pair.secret_access_key))

    def lead_through(self, endpoint: str) -> None:
        """Reach the server there from now on."""
        self.region = replace(self.region, private_endpoint=endpoint)

    @property
    def bucket(self) -> Bucket:
        found = parse_location(self.url)
        assert isinstance(found, Bucket)
        return found

    def way(self, tenant: TenantId = ACME) -> BucketIsolation:
        return BucketIsolation(tenant, self.region, self.bucket, self.operator, self.env)

    def admin(self, tenant: TenantId = ACME) -> S3Admin:
        return S3Admin(self.bucket, tenant, self.operator)

    def key_id(self) -> str | None:
        kept = kept_credentials(self.region, self.env, ACME)
        return kept and kept.access_key_id


@pytest.fixture
def place(seaweedfs: S3Server, tmp_path: Path) -> Place:
    return Place(seaweedfs, tmp_path / "home")


def test_the_tenant_alone_opens_it(place: Place) -> None:
    done = place.way().isolate(FixedClock())

    assert done.made == ("bucket", "user", "policy", "key")
    assert len(done.proved) == 5
    assert done.remarks == ()
    store = open_store(place.region, place.env, Residency(ACME))
    store.put("a", b"body")
    assert store.get("a") == b"body"
    for others in (Residency(BETA), Residency()):
        env = place.env | place.server.root.environment()
        with pytest.raises(StoreDenied):
            open_store(place.region, env, others, clock=FixedClock()).get("a")


def test_a_second_run_tries_it_again_and_makes_nothing(place: Place) -> None:
    place.way().isolate(FixedClock())
    before = place.key_id()

    done = place.way().isolate(FixedClock())

    assert done.made == ()
    assert len(done.proved) == 5
    assert place.key_id() == before


def test_a_new_pair_drops_every_other_one(place: Place) -> None:
    place.way().isolate(FixedClock())
    before = place.key_id()
    place.admin().make_key()  # of a run that was killed before it was kept

    told = place.way().isolate(FixedClock())
    rotated = place.way().isolate(FixedClock(), rotate=True)

    assert "1 more" in told.remarks[0]
    assert (rotated.made, rotated.remarks) == (("key",), ())
    assert place.admin().key_ids() == [place.key_id()] != [before]


def test_another_tenant_does_not_get_it(place: Place) -> None:
    place.way().isolate(FixedClock())
    keys = place.admin().key_ids()

    with pytest.raises(ConfigError, match="may be another tenant's"):
        place.way(BETA).isolate(FixedClock())

    assert place.admin().key_ids() == keys
    assert not place.admin(BETA).has_user()
    assert place.admin().bucket_state() is BucketState.CLOSED


def test_a_prefix_is_not_a_bucket_of_its_own(place: Place) -> None:
    place.url = place.server.url("shared", "acme")

    with pytest.raises(ConfigError, match="prefix of bucket shared"):
        place.way()


@pytest.mark.parametrize("step", ["make_bucket", "make_user", "close_bucket", "make_key", "guard"])
def test_what_fails_half_way_leaves_nothing(
    place: Place, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_after(step, monkeypatch)
    with pytest.raises(StoreDenied, match="broken here"):
        place.way().isolate(FixedClock())
    monkeypatch.undo()

    assert place.key_id() is None
    assert not place.admin().has_user()
    if step == "make_bucket":  # whose it is was not known: it stays, and the next run takes it
        assert place.admin().bucket_state() is BucketState.OPEN
    else:
        assert place.admin().bucket_state() is BucketState.MISSING


@pytest.mark.parametrize("step", ["make_user", "make_key"])
def test_a_run_that_was_killed_is_gone_on_with(
    place: Place, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_after(step, monkeypatch)
    monkeypatch.setattr(BucketIsolation, "_unmake", lambda *_: None)
    with pytest.raises(StoreDenied):
        place.way().isolate(FixedClock())
    monkeypatch.undo()

    done = place.way().isolate(FixedClock())

    assert len(done.proved) == 5
    store = open_store(place.region, place.env, Residency(ACME))
    store.put("a", b"body")


def failing_after(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a step of the admin do its work, and fail then."""
    real: Callable[..., object] = getattr(S3Admin, step)

    def fail(admin: S3Admin) -> object:
        real(admin)
        raise StoreDenied("broken here")

    monkeypatch.setattr(S3Admin, step, fail)


def test_undoing_it_takes_back_what_it_made(place: Place) -> None:
    done = place.way().isolate(FixedClock())

    place.way().undo(done.made)

    assert place.admin().bucket_state() is BucketState.MISSING
    assert not place.admin().has_user()
    assert place.key_id() is None


def test_answers_that_are_lost_are_asked_for_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer to each request is, to those that make or remove something too."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)
    with S3Proxy(place.server.endpoint) as proxy:
        place.lead_through(proxy.endpoint)
        proxy.faults.extend([AnswerLost(), None] * 100)
        done = place.way().isolate(FixedClock())

        assert done.made == ("bucket", "user", "policy", "key")
        assert done.remarks != (), "the key whose answer was lost is there, and is told of"
        place.way().undo(done.made)
        proxy.faults.clear()
    assert place.admin().bucket_state() is BucketState.MISSING
    assert not place.admin().has_user()


def test_undoing_it_keeps_a_bucket_with_something_in_it(place: Place) -> None:
    done = place.way().isolate(FixedClock())
    open_store(place.region, place.env, Residency(ACME)).put("snapshots/a", b"body")

    with pytest.raises(StoreError, match="is not empty, and stays"):
        place.way().undo(done.made)

    assert place.admin().bucket_state() is BucketState.OPEN


def test_a_server_that_ignores_the_policy_is_told_of(ministack: S3Server, tmp_path: Path) -> None:
    """MiniStack keeps users out of each other's buckets, and ignores what a policy denies."""
    done = Place(ministack, tmp_path / "home").way().isolate(FixedClock())

    assert done.proved[-1].startswith("the server lets the operator's key in")


def test_a_policy_that_was_weakened_is_whole_after_the_next_run(place: Place) -> None:
    place.way().isolate(FixedClock())
    admin = place.admin()
    weak = json.loads(admin.guard())
    weak["Statement"][0]["Action"] = ["s3:AbortMultipartUpload"]
    admin._s3.put_bucket_policy(Bucket=admin.bucket.name, Policy=json.dumps(weak))
    root = place.env | place.server.root.environment()
    operator = open_store(place.region, root, Residency(), clock=FixedClock())
    operator.put("a", b"body")

    assert (
        "the operator's own key is refused its objects" in place.way().isolate(FixedClock()).proved
    )

    with pytest.raises(StoreDenied):
        operator.get("a")
