from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kryonix_backup.errors import (
    KryonixError,
    ObjectExists,
    ObjectMissing,
    StoreDenied,
    StoreFull,
    StoreThrottled,
    StoreUnavailable,
    StoreUnsupported,
)
from kryonix_backup.model import MIB
from kryonix_backup.settings import RegionSettings
from kryonix_backup.storage.location import Bucket, parse_location
from kryonix_backup.storage.registry import open_store, s3_credentials
from kryonix_backup.storage.residency import ANYWHERE
from kryonix_backup.storage.s3 import S3Store
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.s3_servers import Credentials, S3Server
from tests.services.s3 import TENANT_A, TENANT_B, new_prefix
from tests.services.s3_proxy import (
    Answer,
    AnswerLost,
    Corrupted,
    CutAnswer,
    CutRequest,
    S3Proxy,
    Silence,
)
from tests.storage.contract import StoreContract, names, raised

pytestmark = pytest.mark.service


def open_bare(region: RegionSettings) -> S3Store:
    """The adapter alone, without retries."""
    bucket = parse_location(region.url)
    assert isinstance(bucket, Bucket)
    return S3Store(bucket, s3_credentials(region, {}, None))


def at(
    region: RegionSettings, *, endpoint: str = "", prefix: str = "", query: str = ""
) -> RegionSettings:
    """The same region by another way, under a prefix or with more in its query."""
    url = region.url
    if endpoint:
        url = url.replace(url[url.index("http://") : url.index("&")], endpoint)
    if prefix:
        url = url.replace("?", f"/{prefix}?", 1)
    return RegionSettings(region.name, url + query, region.access_key_id, region.secret_access_key)


class TestS3StoreOnSeaweedFS(StoreContract):
    @pytest.fixture
    def store(self, seaweedfs: S3Server) -> ObjectStore:
        return open_bare(at(seaweedfs.region(TENANT_A), prefix=new_prefix()))


@pytest.fixture(scope="module")
def ministack_region(ministack: S3Server) -> RegionSettings:
    region = ministack.region(new_prefix())
    open_bare(region).create()
    return region


class TestS3StoreOnMiniStack(StoreContract):
    many = 1100

    @pytest.fixture
    def store(self, ministack_region: RegionSettings) -> ObjectStore:
        return open_bare(at(ministack_region, prefix=new_prefix()))


@pytest.fixture
def server(request: pytest.FixtureRequest) -> S3Server:
    started: S3Server = request.getfixturevalue(request.param)
    return started


both = pytest.mark.parametrize("server", ["seaweedfs", "ministack"], indirect=True)


@both
def test_a_bucket_is_made_where_it_is_missing(server: S3Server) -> None:
    store = open_bare(server.region(new_prefix(), credentials=server.root))

    store.create()
    store.create()
    store.put("a", b"body")

    assert names(store) == ["a"]


@both
def test_a_prefix_hides_the_rest_of_the_bucket(server: S3Server) -> None:
    bucket = new_prefix()
    whole = open_bare(server.region(bucket, credentials=server.root))
    whole.create()
    part = open_bare(at(server.region(bucket, credentials=server.root), prefix="part/one"))
    for name in ("part/one-more", "part/onething", "part/o", "outside"):
        whole.put(name, b"x")

    part.create()
    part.put("inside", b"body")

    assert names(part) == ["inside"]
    assert names(part, "in") == ["inside"]
    assert whole.get("part/one/inside") == b"body"


@both
def test_a_missing_bucket_says_so(server: S3Server) -> None:
    store = open_bare(server.region("nobody-made-this", credentials=server.root))

    for ask in (
        lambda: store.get("a"),
        lambda: store.get_range("a", 0, 3),
        lambda: store.size("a"),
    ):
        with pytest.raises(ObjectMissing, match="the bucket does not exist") as caught:
            ask()
        assert "nobody-made-this" in str(caught.value)
    assert names(store) == []


def test_a_put_into_a_missing_bucket_says_so(ministack: S3Server) -> None:
    """Only here: SeaweedFS makes a bucket that an administrator writes to."""
    with pytest.raises(ObjectMissing, match="the bucket does not exist"):
        open_bare(ministack.region("nobody-made-this")).put("a", b"x")


@both
def test_a_large_object_goes_in_parts(server: S3Server) -> None:
    region = server.region(new_prefix(), credentials=server.root)
    store = open_bare(region)
    store.create()
    body = bytearray(b"0123456789abcdef" * (40 * MIB // 16))

    with S3Proxy(server.endpoint) as proxy:
        by_proxy = open_bare(at(region, endpoint=proxy.endpoint))
        by_proxy.put("packs/large", memoryview(body))
        parts = [path for verb, path in proxy.requests if "partNumber" in path]
    assert len(parts) == 3
    assert store.size("packs/large") == len(body)
    assert store.get("packs/large") == body
    with pytest.raises(ObjectExists, match="packs/large exists already"):
        store.put("packs/large", body[::-1])
    assert store.get_range("packs/large", 0, 16) == b"0123456789abcdef"


def test_a_wrong_secret_is_denied_and_not_repeated(seaweedfs: S3Server) -> None:
    own = seaweedfs.buckets[TENANT_A]
    wrong = Credentials(own.access_key_id, "not-the-secret-at-all")
    store = open_bare(seaweedfs.region(TENANT_A, credentials=wrong))

    for ask in (lambda: store.put("a", b"x"), lambda: store.get("a"), store.create):
        with pytest.raises(StoreDenied) as caught:
            ask()
        assert "not-the-secret-at-all" not in repr(caught.value) + repr(caught.value.__cause__)
        assert own.secret_access_key not in repr(caught.value) + repr(caught.value.__cause__)
    assert set(raised(store, "a").values()) == {StoreDenied}


def test_a_tenants_credentials_open_no_other_bucket(seaweedfs: S3Server) -> None:
    theirs = seaweedfs.region(TENANT_B)
    open_bare(theirs).put("secret", b"x")
    stranger = open_bare(seaweedfs.region(TENANT_B, credentials=seaweedfs.buckets[TENANT_A]))

    assert set(raised(stranger, "secret").values()) == {StoreDenied}
    with pytest.raises(StoreDenied):
        stranger.create()
    assert names(open_bare(theirs)) == ["secret"]


@both
def test_an_upload_that_arrives_changed_is_refused(server: S3Server) -> None:
    region = server.region(new_prefix(), credentials=server.root)
    store = open_bare(region)
    store.create()

    with S3Proxy(server.endpoint) as proxy:
        by_proxy = open_bare(at(region, endpoint=proxy.endpoint))
        proxy.script(Corrupted(5000))
        with pytest.raises(StoreUnavailable, match="BadDigest"):
            by_proxy.put("packs/a", b"x" * 10_000)
    assert names(store) == []


def test_a_server_that_overwrites_is_refused(ministack: S3Server) -> None:
    """MiniStack does not check signatures, so that headers can be kept from it."""
    with S3Proxy(ministack.endpoint, drop_headers=["if-none-match"]) as proxy:
        region = at(ministack.region(new_prefix()), endpoint=proxy.endpoint)
        with pytest.raises(StoreUnsupported, match="overwrites objects"):
            open_bare(region).create()
        assert names(open_bare(region)) == []


@pytest.fixture
def proxy(seaweedfs: S3Server) -> Iterator[S3Proxy]:
    with S3Proxy(seaweedfs.endpoint) as started:
        yield started


@pytest.fixture
def broken(proxy: S3Proxy, seaweedfs: S3Server) -> S3Store:
    """A store behind the proxy, with two objects."""
    store = open_bare(at(seaweedfs.region(TENANT_A), endpoint=proxy.endpoint, prefix=new_prefix()))
    store.put("kept", b"kept" * 50_000)
    return store


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(503, "SlowDown"), StoreThrottled),
        (Answer(429), StoreThrottled),
        (Answer(503, "ServiceUnavailable"), StoreUnavailable),
        (Answer(500, "InternalError"), StoreUnavailable),
        (Answer(502), StoreUnavailable),
        (Answer(403, "AccessDenied"), StoreDenied),
        (Answer(403, "RequestTimeTooSkewed"), StoreDenied),
        (Answer(507, "InsufficientStorage"), StoreFull),
        (Answer(403, "QuotaExceeded"), StoreFull),
        (AnswerLost(), StoreUnavailable),
        (CutRequest(1), StoreUnavailable),
    ],
)
def test_what_goes_wrong_is_told_by_every_method(
    broken: S3Store, proxy: S3Proxy, answer: Answer, kind: type[KryonixError]
) -> None:
    proxy.script(*[answer] * 5)

    found = raised(broken, "kept")

    # A HEAD's answer has no body: its status must do.
    if isinstance(answer, Answer) and answer.code in {"SlowDown", "QuotaExceeded"}:
        found.pop("size")
    assert set(found.values()) == {kind}


@pytest.mark.parametrize("after", [0, 1, 65_536, 3 * MIB - 1])
def test_a_put_that_is_cut_off_leaves_nothing(broken: S3Store, proxy: S3Proxy, after: int) -> None:
    proxy.script(CutRequest(after))

    with pytest.raises(StoreUnavailable, match="object packs/a"):
        broken.put("packs/a", b"x" * (3 * MIB))

    assert names(broken) == ["kept"]
    broken.put("packs/a", b"again")
    assert broken.get("packs/a") == b"again"


@pytest.mark.parametrize("after", [0, 1, 100_000, 199_999])
def test_a_get_that_is_cut_off_is_an_error(broken: S3Store, proxy: S3Proxy, after: int) -> None:
    proxy.script(CutAnswer(after), CutAnswer(after))

    with pytest.raises(StoreUnavailable, match="object kept"):
        broken.get("kept")
    with pytest.raises(StoreUnavailable, match="object kept"):
        broken.get_range("kept", 0, 200_000)


def test_a_listing_that_is_cut_off_is_an_error(broken: S3Store, proxy: S3Proxy) -> None:
    proxy.script(CutAnswer(100))

    with pytest.raises(StoreUnavailable, match="the listing of everything"):
        list(broken.list(""))


def test_a_server_that_never_answers_is_given_up(proxy: S3Proxy, seaweedfs: S3Server) -> None:
    silent = open_bare(
        at(seaweedfs.region(TENANT_A), endpoint=proxy.endpoint, query="&timeout=0.3")
    )
    proxy.script(*[Silence(2)] * 5)

    assert set(raised(silent, "a").values()) == {StoreUnavailable}


def test_a_server_that_is_not_there_is_unavailable(seaweedfs: S3Server) -> None:
    with S3Proxy(seaweedfs.endpoint) as gone:
        pass
    store = open_bare(at(seaweedfs.region(TENANT_A), endpoint=gone.endpoint))

    assert set(raised(store, "a").values()) == {StoreUnavailable}
    with pytest.raises(StoreUnavailable, match=gone.endpoint):
        store.create()


def test_passing_failures_are_overcome(proxy: S3Proxy, seaweedfs: S3Server) -> None:
    clock = FixedClock()
    region = at(seaweedfs.region(TENANT_A), endpoint=proxy.endpoint, prefix=new_prefix())
    store = open_store(region, {}, ANYWHERE, clock=clock)
    body = b"x" * 100_000

    proxy.script(Answer(503, "SlowDown"), CutRequest(50_000), Answer(500), AnswerLost())
    store.put("packs/a", body)
    proxy.script(CutAnswer(500), Answer(503))
    assert store.get("packs/a") == body
    proxy.script(AnswerLost())
    assert store.size("packs/a") == len(body)
    proxy.script(Answer(500))
    assert names(store) == ["packs/a"]

    assert len(clock.slept) == 8


def test_an_unknown_authority_is_not_trusted(seaweedfs: S3Server, tmp_path: Path) -> None:
    """The server speaks no TLS at all, which fails the same way."""
    url = seaweedfs.url(TENANT_A).replace("http://", "https://")
    own = seaweedfs.region(TENANT_A)
    store = open_bare(RegionSettings(own.name, url, own.access_key_id, own.secret_access_key))

    with pytest.raises(StoreUnavailable):
        store.get("a")
