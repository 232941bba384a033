"""A pair that opens too much, or nothing, is found out."""

from __future__ import annotations

from pathlib import Path

import pytest

from kryonix_backup.errors import NotIsolated, StoreDenied
from kryonix_backup.settings import Secret
from kryonix_backup.storage.credentials import S3Credentials
from kryonix_backup.storage.s3_trial import PATIENCE_S, Trial
from kryonix_backup.testing.clock import FixedClock
from kryonix_backup.testing.s3_servers import S3Server
from tests.storage.test_bucket_isolation import Place

pytestmark = pytest.mark.service


@pytest.fixture
def place(seaweedfs: S3Server, tmp_path: Path) -> Place:
    made = Place(seaweedfs, tmp_path)
    made.admin().make_bucket()
    return made


def trial(place: Place, pair: S3Credentials, clock: FixedClock) -> Trial:
    return Trial(place.admin(), place.operator, pair, clock)


def test_a_pair_that_opens_other_buckets_is_refused(place: Place) -> None:
    with pytest.raises(NotIsolated, match="its key lists another bucket"):
        list(trial(place, place.operator, FixedClock()).run())


def test_a_pair_that_opens_nothing_is_waited_for_and_refused(place: Place) -> None:
    clock = FixedClock()

    with pytest.raises(StoreDenied):
        list(trial(place, S3Credentials("nobody", Secret("x" * 40)), clock).run())

    assert sum(clock.slept) >= PATIENCE_S


def test_a_pair_is_waited_for_until_it_is_known(place: Place) -> None:
    """As on Amazon's, where a new key opens its bucket only after a while."""

    class Late(FixedClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            place.admin().make_user()

    place.admin().make_user()
    pair = place.admin().make_key()
    place.admin()._iam.delete_user_policy(  # its rights come late
        UserName=place.admin().user, PolicyName="kryonix-own-bucket"
    )
    clock = Late()

    assert len(list(trial(place, pair, clock).run())) == 5
    assert clock.slept == [1.0]


def test_a_policy_that_does_not_bind_the_operator_is_told(place: Place) -> None:
    place.admin().make_user()
    pair = place.admin().make_key()

    proved = list(trial(place, pair, FixedClock()).run())

    assert proved[-1] == "the server lets the operator's key in, whatever the policy says"
