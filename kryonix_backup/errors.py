"""
Every failure that this project raises on purpose, in one tree.

    KryonixError                      1
    ├── UsageError                    2   the request itself is wrong
    ├── Interrupted                 130   the operator stopped the run
    ├── ConfigError                  10
    │   ├── InvalidName              11   a tenant, source or region name that is not allowed
    │   ├── TenantUnknown            12
    │   ├── TenantExists             13
    │   ├── InvalidUrl               14
    │   ├── SecretMissing            15   no passphrase, key file or PIN, or no credentials
    │   ├── ServerUnreachable        16   the Prefect server does not answer
    │   ├── CatalogUnusable          17   the catalog's database cannot be used
    │   ├── KeyStoreUnusable         18   an HSM or KMS refuses us, or lacks what is needed
    │   └── ResidencyViolation       19   the tenant's data may not be kept or brought there
    ├── TransientError               30   trying again can help
    │   ├── StoreUnavailable         31
    │   ├── StoreThrottled           32   the store asked to slow down
    │   ├── AlreadyRunning           33   another run holds this restore, or follows this log
    │   ├── SourceUnavailable        34   a source's server does not answer
    │   └── KeyStoreUnavailable      35   an HSM or KMS does not answer
    ├── StoreError                   40
    │   ├── ObjectMissing            41
    │   ├── ObjectExists             42
    │   ├── StoreFull                43
    │   ├── StoreDenied              44
    │   ├── StoreUnsupported         45   the store lacks something this project relies on
    │   ├── NotIsolated              46   a tenant's bucket or directory is open to others
    │   └── StoreUntrusted           47   the server's certificate is of nobody who is trusted
    ├── RepositoryError              50
    │   ├── RepositoryMissing        51
    │   ├── RepositoryExists         52
    │   ├── FormatUnsupported        53
    │   ├── KeyRefused               54   a wrong passphrase, key file or master key
    │   ├── Damaged                  55   an object is not what it was when it was written
    │   ├── SnapshotUnknown          56
    │   ├── RolledBack               57   the repository is older than it was seen before
    │   ├── AuditBroken              58   the audit chain is not what was written
    │   └── KeyUnusable              59   the state of a key forbids what was asked
    ├── SourceError                  60
    │   ├── SourceMissing            61
    │   ├── SourceUnreadable         62
    │   ├── SourceDenied             63   a source's server refuses this user
    │   ├── SourceUnprepared         64   a source's server lacks what the transaction log needs
    │   └── LogBroken                65   the transaction log has a gap
    └── RestoreError                 70
        ├── WouldOverwrite           71
        ├── UnsafePath               72   an entry would leave the restore's target
        ├── TargetFull               73
        ├── RestoreUnknown           74
        ├── ValidationFailed         75   what was restored is not what was saved
        └── TimeUnreachable          76   no backup and log lead to that time

The number is the command's exit code; 3 is kept for a backup that is complete but for the
entries its report names. A message is lower case and names the object; the hint tells the
operator what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class KryonixError(Exception):
    """Anything this project can explain to an operator."""

    exit_code: ClassVar[int] = 1
    hint: str = "Run the command again with --verbose and look at the log."
    tenant: str | None = None
    source: str | None = None

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        if hint is not None:
            self.hint = hint

    @property
    def message(self) -> str:
        """What happened, without the hint."""
        return str(self.args[0])

    @property
    def next_step(self) -> str:
        """The hint, with its commands as they are typed for this tenant and source."""
        hint = self.hint.replace(" ID NAME", f" ID {self.source}") if self.source else self.hint
        return hint.replace(" ID", f" {self.tenant}") if self.tenant else hint

    def __str__(self) -> str:
        return self.message


class UsageError(KryonixError):
    """The request itself is wrong."""

    exit_code = 2
    hint = "Run the command with --help to see what it takes."


class Interrupted(KryonixError):
    """The operator stopped the run."""

    exit_code = 130
    hint = "Run the same command again: what is stored already is not stored twice."


class ConfigError(KryonixError):
    """The settings cannot be used as they are."""

    exit_code = 10
    hint = "Correct the setting that the message names."


class InvalidName(ConfigError):
    """A tenant, source or region name that is not allowed."""

    exit_code = 11
    hint = "Use 1 to 40 of a-z, 0-9 and hyphens; start with a letter, end with no hyphen."


class TenantUnknown(ConfigError):
    """No tenant of that name is registered here."""

    exit_code = 12
    hint = (
        "See 'kryonix tenant list'; register it with 'kryonix tenant add', or bring it back from"
        " its repository with 'kryonix catalog rebuild ID --region NAME=URL'."
    )


class TenantExists(ConfigError):
    """The tenant is registered already."""

    exit_code = 13
    hint = "Choose another id, or remove the tenant first with 'kryonix tenant remove ID'."


class InvalidUrl(ConfigError):
    """A region's or a source's address cannot be understood."""

    exit_code = 14
    hint = "Write it like file:///dir, s3://bucket?endpoint=http://host:port or files:///dir."


class SecretMissing(ConfigError):
    """No passphrase, key file or PIN is set, or no credentials."""

    exit_code = 15
    hint = "Set KRYONIX_PASSPHRASE_FILE (or KRYONIX_PASSPHRASE) for this tenant."


class ServerUnreachable(ConfigError):
    """The Prefect server does not answer."""

    exit_code = 16
    hint = "Start it with 'kryonix up', or set PREFECT_API_URL to the one you use."


class CatalogUnusable(ConfigError):
    """The catalog's database cannot be used; no backup depends on it."""

    exit_code = 17
    hint = (
        "The catalog is only a cache: mend KRYONIX_CATALOG_URL, or move the file away, and fill it"
        " again with 'kryonix catalog rebuild ID'."
    )


class KeyStoreUnusable(ConfigError):
    """The HSM or KMS of a tenant does not let us in, or lacks what it is asked for."""

    exit_code = 18
    hint = "Check the key store's address, and its PIN or credentials; then run 'kryonix doctor'."


class ResidencyViolation(ConfigError):
    """The tenant's data may not be kept there, or brought there."""

    exit_code = 19
    hint = (
        "Use a place in one of the tenant's jurisdictions. Where a region is in one, say so with"
        " --jurisdiction NAME=JURISDICTION; where this machine is, with KRYONIX_JURISDICTION."
    )


class TransientError(KryonixError):
    """Something outside failed for now; trying again can help."""

    exit_code = 30
    hint = "Try again in a moment; nothing was lost."


class StoreUnavailable(TransientError):
    """The object store did not answer, or broke off."""

    exit_code = 31
    hint = "Check the network and the store's address, then run the same command again."


class StoreThrottled(TransientError):
    """The object store asked to be called less often."""

    exit_code = 32
    hint = "Wait, then run the same command again, with fewer backups at a time."


class AlreadyRunning(TransientError):
    """Another process works on the same restore, or follows the same log."""

    exit_code = 33
    hint = "Wait for it to end; its lock ends with its process."


class SourceUnavailable(TransientError):
    """A source's server does not answer, or broke off."""

    exit_code = 34
    hint = "Check that the server runs and can be reached, then run the same command again."


class KeyStoreUnavailable(TransientError):
    """The HSM or KMS of a tenant does not answer."""

    exit_code = 35
    hint = "Check that the HSM or KMS runs and can be reached, then run the same command again."


class StoreError(KryonixError):
    """The object store refused a request."""

    exit_code = 40
    hint = "Check the region's address and its store."


class ObjectMissing(StoreError):
    """An object that should be there is not."""

    exit_code = 41
    hint = "Run 'kryonix verify ID --level structure' to learn what depends on it."


class ObjectExists(StoreError):
    """An object of that name is there already; objects are never overwritten."""

    exit_code = 42
    hint = "Use another bucket or directory: this one holds something else."


class StoreFull(StoreError):
    """The store has no room left."""

    exit_code = 43
    hint = "Free or add space in the region that the message names, then run the command again."


class StoreDenied(StoreError):
    """The store refuses these credentials, or this user."""

    exit_code = 44
    hint = "Check the region's credentials and the policy of its bucket or directory."


class StoreUnsupported(StoreError):
    """The store lacks something that safe writing relies on."""

    exit_code = 45
    hint = "Use a store with conditional creation (S3 If-None-Match, or hard links on a disk)."


class NotIsolated(StoreError):
    """A tenant's bucket or directory is open to others, or its credentials open more than it."""

    exit_code = 46
    hint = "Nothing was trusted to it. Mend what the message names on the store and try again."


class StoreUntrusted(StoreError):
    """The server shows a certificate that nobody who is trusted has given to it."""

    exit_code = 47
    hint = (
        "Name your authority's certificates with ca_bundle of the region, or AWS_CA_BUNDLE. Where"
        " they are named already, somebody else answers at that address."
    )


class RepositoryError(KryonixError):
    """The repository cannot be used as it is."""

    exit_code = 50
    hint = "Run 'kryonix verify ID' to see the state of the repository."


class RepositoryMissing(RepositoryError):
    """There is no repository at that address."""

    exit_code = 51
    hint = (
        "Is its disk mounted, its bucket the right one? See 'kryonix tenant show ID'. Only where"
        " there never was one does 'kryonix tenant add' make it."
    )


class RepositoryExists(RepositoryError):
    """There is a repository at that address already."""

    exit_code = 52
    hint = "Use an empty bucket or directory, or take it over with 'kryonix catalog rebuild ID'."


class FormatUnsupported(RepositoryError):
    """The repository was written by a version that this one cannot read."""

    exit_code = 53
    hint = "Use a newer kryonix-backup."


class KeyRefused(RepositoryError):
    """The passphrase, key file or master key does not open this repository."""

    exit_code = 54
    hint = "Check that KRYONIX_PASSPHRASE (or its file) belongs to this tenant."


class Damaged(RepositoryError):
    """An object is not what it was when it was written."""

    exit_code = 55
    hint = (
        "Do not delete anything. Run 'kryonix verify ID --level data' to see what is affected, back"
        " up again, and bring the object back from a copy of the bucket, if there is one."
    )


class SnapshotUnknown(RepositoryError):
    """No snapshot fits what was asked for."""

    exit_code = 56
    hint = "See 'kryonix snapshots ID'."


class RolledBack(RepositoryError):
    """The repository was set back to an older state than this machine has seen."""

    exit_code = 57
    hint = (
        "Run 'kryonix audit ID verify' to see what is missing, find out who set it back, and bring"
        " it back; or go on from here with 'kryonix audit ID accept --reason TEXT'."
    )


class AuditBroken(RepositoryError):
    """The audit chain is not what was written."""

    exit_code = 58
    hint = "Run 'kryonix audit ID verify' to see where, and how to go on."


class KeyUnusable(RepositoryError):
    """A key is there, but its state forbids what was asked of it."""

    exit_code = 59
    hint = "See 'kryonix keys ID show'; 'kryonix keys ID state KEY active' undoes a suspension."


class SourceError(KryonixError):
    """A source cannot be read or written."""

    exit_code = 60
    hint = "Check the source's address and that this user may read it."


class SourceMissing(SourceError):
    """There is nothing at the source's address."""

    exit_code = 61
    hint = "Check the source's address; see 'kryonix tenant show ID'."


class SourceUnreadable(SourceError):
    """An entry of a source cannot be read."""

    exit_code = 62
    hint = "Give the backup's user the right to read it, or exclude it."


class SourceDenied(SourceError):
    """A source's server refuses this user, or its password."""

    exit_code = 63
    hint = (
        "Check the user in the source's address and its password in the passfile (~/.pgpass or"
        " PGPASSFILE); 'kryonix source check ID NAME' says which right is missing."
    )


class SourceUnprepared(SourceError):
    """A source's server lacks what following its transaction log needs."""

    exit_code = 64
    hint = "See 'kryonix source check ID NAME', then run 'kryonix source prepare ID NAME'."


class LogBroken(SourceError):
    """The transaction log has a gap: what happened in it can only be restored from a new full."""

    exit_code = 65
    hint = "Run 'kryonix backup ID --kind full': a new chain of the log begins with it."
    prepared_anew = False  # since; what the source keeps now begins before any backup of it


class RestoreError(KryonixError):
    """A restore cannot go on."""

    exit_code = 70
    hint = "Nothing was replaced. Correct what the message names and restore again."


class WouldOverwrite(RestoreError):
    """The target holds entries that the restore would replace."""

    exit_code = 71
    hint = "Restore elsewhere with --to, what is missing with --include, or say --overwrite."


class UnsafePath(RestoreError):
    """An entry would be written outside the restore's target."""

    exit_code = 72
    hint = "The snapshot or the target was tampered with; restore into an empty directory."


class TargetFull(RestoreError):
    """The target has no room for what is to be restored."""

    exit_code = 73
    hint = "Free space at the target, or restore a part with --include."


class RestoreUnknown(RestoreError):
    """No restore of that id has left a journal."""

    exit_code = 74
    hint = "See those that were begun with 'kryonix audit ID show --action restore'."


class ValidationFailed(RestoreError):
    """What was restored is not what was saved."""

    exit_code = 75
    hint = "The target was left as it was. Run 'kryonix verify ID --level data'."


class TimeUnreachable(RestoreError):
    """No backup and no stretch of the transaction log lead to that time."""

    exit_code = 76
    hint = "Choose a time that 'kryonix snapshots ID' shows as restorable."
