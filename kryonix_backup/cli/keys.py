"""`kryonix keys`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.options import NAME_URL, named_regions, tenant_argument
from kryonix_backup.cli.progress import shown_progress
from kryonix_backup.cli.text import size, table
from kryonix_backup.errors import UsageError

if TYPE_CHECKING:
    from kryonix_backup.sdk.keys import Keys

Regions = tuple[tuple[str, str], ...]

_MOST_BYTES = 64 * 1024
_STATES = ["active", "decrypt-only", "suspended", "compromised"]


class _AfterTenant(click.Group):
    """``keys ID show``: says so where the id was left out, or stands behind."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = bool(args) and not ctx.resilient_parsing and args[0] in self.commands
        if first and (len(args) == 1 or args[1] not in self.commands):
            raise UsageError(
                f"the tenant's id stands before {args[0]!r}", f"Run 'kryonix keys ID {args[0]}'."
            )
        return super().parse_args(ctx, args)


@click.group(cls=_AfterTenant, epilog="Example: kryonix keys acme show")
@tenant_argument
@click.pass_context
def keys(context: click.Context, tenant: str) -> None:
    """Show, rotate, move, escrow, recover and destroy the keys of a tenant."""
    context.meta["tenant"] = tenant


def _keys(regions: Regions = ()) -> Keys:
    """The keys of the tenant that the command names."""
    from kryonix_backup.sdk.tenants import tenant_keys

    tenant = click.get_current_context().meta["tenant"]
    return tenant_keys(tenant, regions=named_regions(regions), env=os.environ)


_in_regions = click.option(
    "--region", "regions", type=NAME_URL, multiple=True,
    help="Only where these say, in place of the tenant's regions: where one is away, or has other"
    " keys; repeatable.",
)  # fmt: skip


@keys.command(epilog="Example: kryonix keys acme show --region west=file:///backup/acme")
@_in_regions
@answers
def show(regions: Regions) -> Answer:
    """Every key with its state, whom they are wrapped for, and what is due. Never a secret."""
    return _shown(_keys(regions).show())


@keys.command(epilog="Example: kryonix keys acme rotate --dry-run")
@click.option("--dry-run", is_flag=True, help="Say what is due and change nothing.")
@answers
def rotate(*, dry_run: bool) -> Answer:
    """
    Rotate what is due by the tenant's schedules.

    A passphrase or key file cannot renew itself: that it is due is told, and 'move' does it.
    """
    ours = _keys()
    if dry_run:
        return _shown(ours.show())
    report = ours.rotate_due()
    return Answer(report, _lines(report))


@keys.command("rotate-data", epilog="Example: kryonix keys acme rotate-data")
@click.option(
    "--prepare", is_flag=True,
    help="Only make the next key, pre-active: it is in every region before it is used.",
)  # fmt: skip
@answers
def rotate_data(*, prepare: bool) -> Answer:
    """Start a new epoch of data keys. What older ones sealed stays as it is, and opens."""
    ours = _keys()
    return _shown(ours.prepare_data() if prepare else ours.rotate_data())


@keys.command("rotate-archive", epilog="Example: kryonix keys acme rotate-archive")
@answers
def rotate_archive() -> Answer:
    """Start a new epoch of archive keys. What older ones sealed opens as before."""
    return _shown(_keys().rotate_archive())


@keys.command("rotate-master", epilog="Example: kryonix keys acme rotate-master")
@answers
def rotate_master() -> Answer:
    """
    Let the tenant's HSM or KMS make the next version of its master key, and use it.

    No data is rewritten. The versions before are destroyed.
    """
    return _shown(_keys().rotate_master())


@keys.command(
    epilog="Example: kryonix keys acme move --to pkcs11:///usr/lib/softhsm/libsofthsm2.so?token=k"
)
@click.option(
    "--to", "store", metavar="URL",
    help="An HSM or KMS: pkcs11:///module.so?token=LABEL or kms://ALIAS?region=R. Without it, what"
    " KRYONIX_NEW_PASSPHRASE, KRYONIX_NEW_PASSPHRASE_FILE or KRYONIX_NEW_KEY_FILE says.",
)  # fmt: skip
@answers
def move(store: str | None) -> Answer:
    """
    Wrap the keys for another master: another passphrase, key file, HSM or KMS.

    No data is rewritten. From then on the old master opens nothing. KRYONIX_NEW_PIN_FILE and so on
    let in to a new HSM or KMS that does not take what let in to the old one.
    """
    report = _keys().move(store)
    then = "next: where flows back this tenant up, give the workers the new master and run"
    return Answer(report, [*_lines(report), f"{then} 'kryonix deploy {report['tenant']}'"])


@keys.command(epilog="Example: kryonix keys acme settle")
@answers
def settle() -> Answer:
    """Complete a change of keys that was cut short, in every region."""
    return _shown(_keys().settle())


@keys.command(epilog="Example: kryonix keys acme state 3 compromised")
@click.argument("key")
@click.argument("state", type=click.Choice(_STATES))
@_in_regions
@answers
def state(key: str, state: str, regions: Regions) -> Answer:
    """
    Say what may be done with a data KEY, named by its id or its epoch.

    suspended: it opens nothing until it is active or decrypt-only again. compromised: it seals
    nothing more, and 'reseal' takes it out of use for good.
    """
    from kryonix_backup.sdk.keys import KeyState

    return _shown(_keys(regions).set_state(key, KeyState(state)))


@keys.command(epilog="Example: kryonix keys acme reseal 3 --dry-run")
@click.argument("key")
@click.option("--dry-run", is_flag=True, help="Say what it costs and change nothing.")
@answers
def reseal(key: str, *, dry_run: bool) -> Answer:
    """
    Seal anew what a compromised data KEY sealed, then destroy that key.

    Only that is read and written again: how much it is, is told first. It may be stopped and run
    again.
    """
    ours = _keys()
    cost = ours.reseal_cost(key)
    plain = [{"region": each.region, "objects": each.objects, "bytes": each.bytes} for each in cost]
    told = [f"  {each.region}: {each.objects:,} objects, {size(each.bytes)}" for each in cost]
    if dry_run:
        answer = {"tenant": ours.tenant, "key": key, "dry_run": True, "cost": plain}
        return Answer(answer, [f"key {key} sealed", *told])
    click.echo("\n".join((f"to be sealed anew, of key {key}:", *told)), err=True)
    with shown_progress() as listener:
        report = ours.reseal(key, listener)
    return Answer({**report, "cost": plain}, ["sealed anew", *told, *_lines(report)])


@keys.command(epilog="Example: kryonix keys acme escrow --shares 3/5 --into ./acme-escrow")
@click.option("--shares", metavar="M/N", help="Any M of N shares open the keys, such as 3/5.")
@click.option(
    "--into", type=click.Path(path_type=Path), metavar="DIR",
    help="A new directory for the files of the shares.",
)  # fmt: skip
@click.option(
    "--rsa", "public", type=click.Path(path_type=Path),
    help="An RSA public key in PEM, whose private half opens the keys.",
)  # fmt: skip
@click.option("--remove", is_flag=True, help="Let no escrow open the keys any more.")
@answers
def escrow(shares: str | None, into: Path | None, public: Path | None, *, remove: bool) -> Answer:
    """
    Let others recover the keys when the master is lost, in place of the escrow before.

    The shares are written once and kept nowhere else: give each to another person.
    """
    if [bool(shares), bool(public), remove].count(True) != 1:
        raise UsageError("say one of --shares M/N, --rsa FILE and --remove")
    if bool(shares) != bool(into):
        raise UsageError("--shares and --into go together")
    if public:
        return _shown(_keys().escrow_rsa(_content(public)))
    if remove:
        return _shown(_keys().remove_escrow())
    assert shares is not None
    assert into is not None
    threshold, _, count = shares.partition("/")
    if not (threshold.isdecimal() and count.isdecimal()):
        raise UsageError(f"{shares!r} is not like 3/5")
    ours = _keys()
    paths = [str(path) for path in ours.escrow_shares(int(threshold), int(count), into)]
    lines = [
        f"any {threshold} of these {count} files recover the keys of tenant {ours.tenant}:",
        *(f"  {path}" for path in paths),
        "next: give each to another person, then delete them here",
    ]
    plain = {"tenant": ours.tenant, "threshold": int(threshold), "shares": paths}
    return Answer(plain, lines)


@keys.command(
    epilog="Example: kryonix keys acme recover --region primary=file:///backup/acme --share a.txt"
    " --share b.txt --share c.txt"
)
@click.option(
    "--region", "regions", type=NAME_URL, multiple=True,
    help="Where the tenant's repository is, if the tenant is not registered here; repeatable.",
)  # fmt: skip
@click.option(
    "--share", "shares", type=click.Path(path_type=Path), multiple=True,
    help="The file of a share; repeatable.",
)  # fmt: skip
@click.option(
    "--escrow-key", "private", type=click.Path(path_type=Path),
    help="The RSA private key in PEM; KRYONIX_ESCROW_PASSWORD, if it has one.",
)  # fmt: skip
@click.option("--second", is_flag=True, help="Open the keys by the tenant's second master.")
@click.option("--to", "store", metavar="URL", help="The new master is in this HSM or KMS.")
@answers
def recover(
    regions: Regions, shares: tuple[Path, ...], private: Path | None, store: str | None,
    *, second: bool,
) -> Answer:  # fmt: skip
    """
    Wrap the keys for a new master when the old one is lost, by an escrow or the second master.

    The new master is that of --to, or what KRYONIX_PASSPHRASE_FILE, KRYONIX_KEY_FILE and so on say.
    """
    from kryonix_backup.sdk.tenants import lost_keys
    from kryonix_backup.settings import Secret

    if [bool(shares), bool(private), second].count(True) != 1:
        raise UsageError("give one of --share, --escrow-key and --second")
    given = [Secret(_content(path)) for path in shares]
    pem = Secret(_content(private)) if private else None
    tenant = click.get_current_context().meta["tenant"]
    ours = lost_keys(tenant, store, regions=named_regions(regions), env=os.environ)
    report = ours.recover(given, pem)
    then = f"next: kryonix keys {tenant} escrow --shares M/N --into DIR: these were together"
    return Answer(report, [*_lines(report), *([then] if shares else [])])


def _content(path: Path) -> bytes:
    """What is in a small file; raises UsageError."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise UsageError(f"{path} is longer than any key or share", "Check the path.")
    return content


@keys.command(epilog="Example: kryonix keys acme destroy --confirm acme")
@click.option("--confirm", metavar="ID", help="The tenant's id once more; asked for without it.")
@answers
def destroy(confirm: str | None) -> Answer:
    """
    Destroy every key in every region: nothing of the tenant can ever be restored.

    A record with the proof stays in every region and under KRYONIX_HOME. Exits 1 where a region
    could not be reached; run it again then.
    """
    ours = _keys()
    if confirm is None:
        if not os.isatty(0):
            raise UsageError("destroying keys needs --confirm with the tenant's id")
        confirm = click.prompt(f"Type the id of the tenant whose data ends here ({ours.tenant})")
    if confirm != ours.tenant:
        raise UsageError(f"{confirm!r} is not the tenant's id: nothing was destroyed")
    record = ours.destroy()
    plain = record.to_plain()
    how = "are destroyed" if record.complete else "are NOT destroyed everywhere: run this again"
    lines = [f"the keys of tenant {ours.tenant} {how}"]
    for proof in record.regions:
        state = {None: "not reached", True: "STILL OPENS", False: "opens no more"}[proof.opens]
        lines.append(f"  {proof.region}: {state}; {proof.keys_removed} removed; {proof.evidence}")
    lines += [f"  key store: NOT DESTROYED: {each}" for each in record.masters_left]
    lines += [f"  note: {remark}" for remark in record.remarks]
    return Answer(plain, lines, 0 if record.complete else 1)


def _shown(report: dict[str, Any]) -> Answer:
    return Answer(report, _lines(report))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    master = report["master"]
    yield (
        f"tenant {report['tenant']}: keyring {report['generation']}, wrapped for"
        f" {', '.join(report['recipients']) or master['store']}"
    )
    rows = [
        (row["purpose"], str(row["epoch"]), row["state"], row["created"][:19], row["key"])
        for row in report["keys"]
    ]
    yield from table(("purpose", "epoch", "state", "created", "key"), rows)
    yield f"master since {master['since'][:19]}, due {master['due'][:10]}"
    yield f"data key due {report['data_due'][:10]}, archive key {report['archive_due'][:10]}"
    for what in report.get("rotated", ()):
        yield f"rotated: {what}"
    if report["due"]:
        yield f"due now: {', '.join(report['due'])}"
    if "master" in report["due"] and master["store"] in ("passphrase", "key-file"):
        yield (
            "next: set KRYONIX_NEW_PASSPHRASE_FILE or KRYONIX_NEW_KEY_FILE and run"
            f" 'kryonix keys {report['tenant']} move'"
        )
