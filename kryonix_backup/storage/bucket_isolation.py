"""A bucket for one tenant alone: made, closed, tried, and only then trusted with its key pair."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress

from kryonix_backup.clock import Clock
from kryonix_backup.errors import ConfigError, KryonixError
from kryonix_backup.model import TenantId
from kryonix_backup.settings import RegionSettings
from kryonix_backup.storage.credentials import KeptCredentials, S3Credentials
from kryonix_backup.storage.isolation import Isolation
from kryonix_backup.storage.location import Bucket
from kryonix_backup.storage.private import reached
from kryonix_backup.storage.s3_admin import BucketState, S3Admin
from kryonix_backup.storage.s3_trial import Trial

_BUCKET, _POLICY, _USER, _KEY = "bucket", "policy", "user", "key"


class BucketIsolation:
    """
    One region's bucket, its user and its key pair.

    `isolate` may be run again at any time, and goes on where one was killed. The operator's pair is
    used for these calls and never kept.
    """

    def __init__(
        self,
        tenant: TenantId,
        region: RegionSettings,
        bucket: Bucket,
        operator: S3Credentials,
        env: Mapping[str, str],
    ) -> None:
        if bucket.prefix:
            raise ConfigError(
                f"region {region.name} is a prefix of bucket {bucket.name}, which cannot be one"
                " tenant's alone",
                "Give the tenant a bucket of its own, or unset the operator's credentials"
                " KRYONIX_{REGION}_ADMIN_….",
            )
        self._region, self._bucket, self._operator = region, bucket, operator
        self._admin = S3Admin(reached(region, bucket, env), tenant, operator)
        self._kept = KeptCredentials(env, tenant)
        self._made: list[str] = []
        self._fresh: S3Credentials | None = None

    def isolate(self, clock: Clock, *, rotate: bool = False) -> Isolation:
        """
        Make what is missing, try it, and keep the key pair.

        With ``rotate`` the pair is a new one, and every other one of the user is dropped after it
        was tried. What fails leaves nothing that was not there before. Raises ConfigError,
        NotIsolated, StoreDenied and what else a store raises.
        """
        try:
            self._prepare()
            pair = self._pair(rotate=rotate)
            trial = Trial(self._admin, self._operator, pair, clock)
            proved = tuple(trial.run())
            self._kept.keep(self._region.name, self._bucket, pair)
        except BaseException:
            with suppress(KryonixError):  # what led here says more
                self._unmake(self._made, self._fresh)
            raise
        others = [each for each in self._admin.key_ids() if each != pair.access_key_id]
        if rotate:
            for each in others:
                self._admin.drop_key(each)
            others = []
        return Isolation(
            self._region.name,
            "bucket",
            self._admin.bucket.address,
            self._admin.user,
            tuple(self._made),
            proved,
            (_others(len(others)),) if others else (),
        )

    def _prepare(self) -> None:
        state = self._admin.bucket_state()
        if state is BucketState.MISSING:
            self._admin.make_bucket()
            self._made.append(_BUCKET)
        if not self._admin.has_user():
            self._made.append(_USER)
        self._admin.make_user()
        if state is not BucketState.CLOSED:
            self._made.append(_POLICY)
        self._admin.close_bucket()  # whoever changed what it denies has left its name alone

    def _pair(self, *, rotate: bool) -> S3Credentials:
        kept = self._kept.load(self._region.name, self._bucket)
        known = self._admin.key_ids()
        if kept is not None and kept.access_key_id in known and not rotate:
            return kept
        if rotate:  # Amazon's users have two keys at most: what nobody here knows makes room
            for each in known:
                if kept is None or each != kept.access_key_id:
                    self._admin.drop_key(each)
        self._fresh = self._admin.make_key()
        self._made.append(_KEY)
        return self._fresh

    def undo(self, made: Collection[str]) -> None:
        """
        Unmake what `isolate` has made; what was there before it stays.

        A bucket that is not empty stays too: it is open to the operator again.
        """
        kept = self._kept.load(self._region.name, self._bucket)
        self._unmake(made, kept)
        if _KEY in made:
            self._kept.forget(self._region.name)

    def _unmake(self, made: Collection[str], fresh: S3Credentials | None) -> None:
        if _POLICY in made:
            self._admin.open_bucket()
        if _USER in made:
            self._admin.drop_user()
        elif _KEY in made and fresh is not None:
            self._admin.drop_key(fresh.access_key_id)
        if _BUCKET in made:
            self._admin.drop_bucket()


def _others(count: int) -> str:
    return (
        f"the user has {count} more: a key of another machine, or of a run that was killed;"
        " 'kryonix tenant isolate ID --rotate' drops all but a new one"
    )
