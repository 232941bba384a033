"""
Two tenants with a bucket each on a real server that enforces keys and policies, and a thief.

The worst case is assumed throughout: both tenants have the same key file, so that nothing but what
is bound to each object keeps them apart, and the thief has read every object of both.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from kryonix_backup.backup.report import BackupReport
from kryonix_backup.errors import KryonixError
from kryonix_backup.model import RegionName, SourceName, TenantId, Tier
from kryonix_backup.sdk.client import Client, Level, RestoreRequest
from kryonix_backup.sdk.tenants import add_tenant
from kryonix_backup.settings import PRIMARY, RegionSettings, RootKey, SourceSettings, TenantSettings
from kryonix_backup.storage.location import Bucket, parse_location
from kryonix_backup.storage.registry import kept_credentials, open_store
from kryonix_backup.storage.residency import Residency
from kryonix_backup.storage.store import ObjectStore
from kryonix_backup.testing.s3_servers import S3Server

DOCS = SourceName("docs")
REGIONS = (PRIMARY, RegionName("secondary"))


class Tenant:
    """One of the two: its files, its buckets, and three states of its repository."""

    def __init__(self, server: S3Server, work: Path, name: str, key: bytes) -> None:
        self.id = TenantId(name)
        self.files = work / f"files-{name}"
        self.secret = f"the secret of {name}, told to nobody else".encode()
        self.files.mkdir(parents=True)
        (self.files / "secret").write_bytes(self.secret)
        (self.files / "same").write_bytes(b"both have this" * 3000)
        (self.files / "mine").write_bytes(self.secret * 2000)
        (work / f"key-{name}").write_bytes(key)
        self.env = {"KRYONIX_HOME": str(work / f"home-{name}"),
                    "KRYONIX_KEY_FILE": str(work / f"key-{name}")}  # fmt: skip
        regions = tuple(
            RegionSettings(each, server.url(f"attack-{name}-{each}")) for each in REGIONS
        )
        source = SourceSettings(DOCS, f"files://{self.files}")
        self.settings = TenantSettings(self.id, Tier("standard"), regions, (source,))
        operator = {
            f"KRYONIX_{region.upper()}_ADMIN_{what}": value
            for region in REGIONS
            for what, value in (("ACCESS_KEY_ID", server.root.access_key_id),
                                ("SECRET_ACCESS_KEY", server.root.secret_access_key))
        }  # fmt: skip
        add_tenant(self.settings, env=self.env | operator)
        self.first, self.older = self._backup(), self.objects()
        (self.files / "later").write_bytes(b"later " + self.secret)
        self.second = self._backup()
        for region in REGIONS[1:]:
            self.client(region).backup()
        self.whole = {region: self.objects(region) for region in REGIONS}

    def _backup(self) -> BackupReport:
        return self.client().backup()

    @property
    def root(self) -> RootKey:
        return RootKey.from_environment(self.env, self.id)

    def client(self, region: RegionName = PRIMARY) -> Client:
        """A client that has seen nothing yet: one that has would notice any setting back."""
        shutil.rmtree(Path(self.env["KRYONIX_HOME"]) / "anchors", ignore_errors=True)
        return Client(self.settings, self.root, env=self.env, region=region)

    def store(self, region: RegionName = PRIMARY) -> ObjectStore:
        """The tenant's bucket, by its own credentials."""
        return open_store(self.settings.region(region), self.env, Residency(self.id))

    def bucket(self, region: RegionName = PRIMARY) -> Bucket:
        found = parse_location(self.settings.region(region).url)
        assert isinstance(found, Bucket)
        return found

    def stolen(self, region: RegionName = PRIMARY) -> RegionSettings:
        """The region with its key pair, as whoever stole the pair would write it."""
        pair = kept_credentials(self.settings.region(region), self.env, self.id)
        assert pair is not None
        return replace(
            self.settings.region(region),
            access_key_id=pair.access_key_id,
            secret_access_key=pair.secret_access_key,
        )

    def pair(self, region: RegionName = PRIMARY) -> dict[str, str]:
        """The key pair as a thief's environment has it."""
        stolen = self.stolen(region)
        assert stolen.access_key_id is not None
        assert stolen.secret_access_key is not None
        return {
            "AWS_ACCESS_KEY_ID": stolen.access_key_id,
            "AWS_SECRET_ACCESS_KEY": stolen.secret_access_key.reveal().decode(),
        }

    def objects(self, region: RegionName = PRIMARY) -> dict[str, bytes]:
        """Everything that is in a bucket."""
        store = self.store(region)
        return {info.name: store.get(info.name) for info in store.list("")}

    def mend(self) -> None:
        """Put the primary bucket back as it was."""
        store, whole = self.store(), self.whole[PRIMARY]
        for name, body in self.objects().items():
            if name not in whole:
                store.delete(name)
            elif body != whole[name]:
                store.replace(name, whole[name])
        for name in whole.keys() - {info.name for info in store.list("")}:
            store.put(name, whole[name])

    def plant(self, objects: dict[str, bytes]) -> None:
        """Put foreign objects into the primary bucket, over what is there."""
        store = self.store()
        for name, body in objects.items():
            store.replace(name, body)

    def restored(self, out: Path, snapshot: str = "latest") -> KryonixError | None:
        """Restore all of it; the error where it fails."""
        request = RestoreRequest(snapshot=snapshot, to={DOCS: f"files://{out}"})
        try:
            self.client().restore(request)
        except KryonixError as error:
            return error
        return None

    def told(self) -> list[str]:
        """The objects that a verification of everything names; where it fails, what it says."""
        try:
            report = self.client().verify(Level.DATA)
        except KryonixError as error:
            return [error.message]
        return [f"{each.object} {each.reason}" for each in report.damage]


def content(folder: Path) -> dict[str, bytes]:
    """The files below a folder; none where it is not there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def of_kind(objects: dict[str, bytes], kind: str) -> dict[str, bytes]:
    """Those whose name begins so."""
    return {name: body for name, body in objects.items() if name.startswith(kind)}


def windows(body: bytes, size: int, step: int) -> Iterator[bytes]:
    """Every piece of that size, so far apart."""
    return (body[at : at + size] for at in range(0, len(body) - size + 1, step))
