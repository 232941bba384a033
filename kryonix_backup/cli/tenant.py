"""`kryonix tenant add`, `isolate`, `list`, `show` and `remove`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kryonix_backup.cli.answer import Answer, answers
from kryonix_backup.cli.isolation import isolation_lines, isolation_plain
from kryonix_backup.cli.options import (
    NAME_JURISDICTION,
    NAME_PATTERN,
    NAME_URL,
    tenant_argument,
)
from kryonix_backup.cli.tenant_file import read_tenant_file
from kryonix_backup.cli.text import printable, table
from kryonix_backup.cli.tiers import terms_lines
from kryonix_backup.errors import UsageError

if TYPE_CHECKING:
    from kryonix_backup.settings import TenantSettings

_NETWORK = {
    "private_endpoint": "reached at",
    "proxy": "by way of",
    "ca_bundle": "with certificates of",
}


@click.group(epilog="Example: kryonix tenant list")
def tenant() -> None:
    """Add, isolate, list, show and remove the tenants of this machine."""


@tenant.command(
    epilog="Example: kryonix tenant add acme --tier enterprise --region"
    " primary=file:///backup/acme --source documents=files:///srv/acme",
)
@tenant_argument
@click.option(
    "--tier", metavar="NAME",
    help="What the tenant was promised, one of those that 'kryonix tiers' lists.",
)  # fmt: skip
@click.option(
    "--region", "regions", type=NAME_URL, multiple=True,
    help="Where backups go, such as primary=s3://bucket?endpoint=http://host:port; repeatable, and"
    " one must be named primary.",
)  # fmt: skip
@click.option(
    "--source", "sources", type=NAME_URL, multiple=True,
    help="What is backed up, such as documents=files:///srv/acme; repeatable.",
)  # fmt: skip
@click.option(
    "--include", "includes", type=NAME_PATTERN, multiple=True,
    help="Of source NAME only what fits this gitignore pattern; repeatable.",
)  # fmt: skip
@click.option(
    "--exclude", "excludes", type=NAME_PATTERN, multiple=True,
    help="Of source NAME nothing that fits this gitignore pattern; repeatable.",
)  # fmt: skip
@click.option(
    "--one-file-system", "one_file_systems", metavar="NAME", multiple=True,
    help="Leave out other file systems that are mounted in source NAME; repeatable.",
)  # fmt: skip
@click.option(
    "--residency", metavar="JURISDICTION", multiple=True,
    help="Where the tenant's data may be kept; repeatable.",
)  # fmt: skip
@click.option(
    "--limit",
    "limits",
    metavar="NAME=VALUE",
    multiple=True,
    help="A limit below the tier's: cores, memory, bandwidth or workers, such as"
    " bandwidth='100 Mbit/s'; repeatable.",
)
@click.option(
    "--jurisdiction", "jurisdictions", type=NAME_JURISDICTION, multiple=True,
    help="Where region NAME is, such as primary=BR; Amazon's own regions are known; repeatable.",
)  # fmt: skip
@click.option(
    "--system-user",
    is_flag=True,
    help="Let directories belong to an account of the tenant's own, which root can make.",
)
@click.option(
    "--file", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Settings in YAML, as 'tenant show --json' prints them, a region's proxy, ca_bundle and"
    " private_endpoint among them; options add to them.",
)  # fmt: skip
@answers
def add(tenant: str, path: Path | None, **given: Any) -> Answer:
    """
    Make a tenant's repositories and register it.

    The passphrase comes from KRYONIX_PASSPHRASE, KRYONIX_PASSPHRASE_FILE or KRYONIX_KEY_FILE. Keep
    it: without it nobody can read the backups. Where anything fails nothing is registered.
    """
    from kryonix_backup.sdk.tenants import add_tenant
    from kryonix_backup.settings import TenantSettings

    plain = _settings(tenant, read_tenant_file(path) if path else {}, **given)
    settings = TenantSettings.from_plain(plain)
    client, isolation, record = add_tenant(settings)
    shown = _shown(settings)
    done = {**isolation_plain(isolation), "repository": client.repository.id}
    answer = {**shown, **done, "onboarding": record["steps"]}
    lines = [f"tenant {settings.id} is registered", *_show_lines(settings, shown["promised"])]
    lines += isolation_lines(isolation)
    return Answer(answer, [*lines, *_next_lines(settings.id, record["steps"]["monitoring"])])


def _next_lines(tenant: str, monitoring: dict[str, Any]) -> Iterator[str]:
    found = {source: each for source, each in monitoring["findings"].items() if each}
    for source, findings in found.items():
        yield from (printable(f"  warning: source {source}: {each}") for each in findings)
    for source in found:
        yield f"next: kryonix source check {tenant} {source}, which says how to mend it"
    yield f"{'then' if found else 'next'}: kryonix backup {tenant}"


def _settings(tenant: str, file: dict[str, Any], **given: Any) -> dict[str, Any]:
    """The settings in `TenantSettings.to_plain`'s form: the file's, and what options add."""
    from kryonix_backup.sdk.limits import default_tier

    if file.get("id", tenant) != tenant:
        raise UsageError(f"the file is about tenant {file['id']!r}, not {tenant!r}")
    system_user = {"system_user": True} if given["system_user"] else {}
    return {
        "id": tenant,
        "tier": given["tier"] or file.get("tier") or default_tier(os.environ),
        "regions": _regions(file.get("regions", ()), **given),
        "sources": _sources(file.get("sources", ()), **given),
        "residency": [*file.get("residency", ()), *given["residency"]],
        "transfers": list(file.get("transfers", ())),
        "isolation": {**file.get("isolation", {}), **system_user},
        "limits": {**file.get("limits", {}), **_limits(given["limits"])},
        "keys": file.get("keys", {}),
    }


def _limits(pairs: Iterable[str]) -> dict[str, str]:
    found = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(found) < len(tuple(pairs)):
        raise UsageError("--limit is written like bandwidth='100 Mbit/s', once for each limit")
    return found


def _regions(file: Iterable[dict[str, Any]], **given: Any) -> list[dict[str, Any]]:
    rows = [*(dict(row) for row in file), *_named(given["regions"])]
    for name, place in given["jurisdictions"]:
        _row(rows, name, "jurisdiction", "region")["jurisdiction"] = place
    return rows


def _sources(file: Iterable[dict[str, Any]], **given: Any) -> list[dict[str, Any]]:
    rows = [*(dict(row) for row in file), *_named(given["sources"])]
    for setting in ("include", "exclude"):
        for name, pattern in given[f"{setting}s"]:
            row = _row(rows, name, setting)
            row[setting] = [*row.get(setting, ()), pattern]
    for name in given["one_file_systems"]:
        _row(rows, name, "one-file-system")["one_file_system"] = True
    return rows


def _named(pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"name": name, "url": url} for name, url in pairs]


def _row(
    rows: list[dict[str, Any]], name: str, option: str, what: str = "source"
) -> dict[str, Any]:
    for row in rows:
        if row.get("name") == name:
            return row
    raise UsageError(f"--{option} names {what} {name!r}, which is not among the {what}s")


@tenant.command(epilog="Example: kryonix tenant isolate acme --region primary")
@tenant_argument
@click.option("--region", metavar="NAME", help="Only this region of the tenant.")
@click.option("--rotate", is_flag=True, help="Make new key pairs, and drop all that were before.")
@answers
def isolate(tenant: str, region: str | None, rotate: bool) -> Answer:  # noqa: FBT001 - as click calls it
    """
    Make a tenant's buckets and directories its own alone, and try it.

    May be run at any time. A bucket needs KRYONIX_{REGION}_ADMIN_ACCESS_KEY_ID and
    KRYONIX_{REGION}_ADMIN_SECRET_ACCESS_KEY, which are not kept; one without them is left as it is.
    """
    from kryonix_backup.sdk.isolation import isolate_tenant
    from kryonix_backup.sdk.tenants import show_tenant

    done = isolate_tenant(show_tenant(tenant), region=region, rotate=rotate)
    return Answer({"tenant": tenant, **isolation_plain(done)}, isolation_lines(done))


@tenant.command("list", epilog="Example: kryonix tenant list --json")
@answers
def list_() -> Answer:
    """List the tenants that are registered here."""
    from kryonix_backup.sdk.tenants import list_tenants

    found = list_tenants()
    plain = {"tenants": [settings.to_plain() for settings in found]}
    return Answer(plain, _list_lines(found))


def _list_lines(found: list[TenantSettings]) -> Iterator[str]:
    if not found:
        yield "no tenants yet; see 'kryonix tenant add --help'"
        return
    rows = [
        (
            settings.id,
            settings.tier,
            ", ".join(region.name for region in settings.regions),
            ", ".join(source.name for source in settings.sources),
        )
        for settings in found
    ]
    yield from table(("tenant", "tier", "regions", "sources"), rows)


@tenant.command(epilog="Example: kryonix tenant show acme")
@tenant_argument
@answers
def show(tenant: str) -> Answer:
    """Show a tenant's settings, what its tier promises and what it may take."""
    from kryonix_backup.sdk.tenants import show_tenant

    settings = show_tenant(tenant)
    shown = _shown(settings)
    return Answer(shown, _show_lines(settings, shown["promised"]))


def _shown(settings: TenantSettings) -> dict[str, Any]:
    """The settings, and under ``promised`` what follows from them; null for an unknown tier."""
    from kryonix_backup.sdk.limits import load_tiers, promised

    known = settings.tier in load_tiers(os.environ)
    return {**settings.to_plain(), "promised": promised(settings, os.environ) if known else None}


def _show_lines(settings: TenantSettings, terms: dict[str, Any] | None) -> Iterator[str]:
    yield f"tenant {settings.id}, tier {settings.tier}"
    yield from terms_lines(terms) if terms else ("  this machine knows no such tier",)
    if settings.residency:
        yield f"  residency: {', '.join(settings.residency)}"
    for each in settings.transfers:
        yield printable(f"  transfer to {each.jurisdiction}: {each.mechanism}")
    for region in settings.regions:
        where = f" in {region.jurisdiction}" if region.jurisdiction else ""
        yield printable(f"  region {region.name}{where}: {region.url}")
        network = {_NETWORK[name]: value for name, value in region.network.items()}
        yield from (printable(f"    {what} {value}") for what, value in network.items())
    for source in settings.sources:
        yield printable(f"  source {source.name}: {source.url}")
        yield from (printable(f"    include {pattern}") for pattern in source.include)
        yield from (printable(f"    exclude {pattern}") for pattern in source.exclude)


@tenant.command(epilog="Example: kryonix tenant remove acme")
@tenant_argument
@answers
def remove(tenant: str) -> Answer:
    """Forget a tenant; its backups stay where they are."""
    from kryonix_backup.sdk.tenants import remove_tenant

    settings = remove_tenant(tenant)
    kept = settings.to_plain()["regions"]
    lines = [f"tenant {settings.id} is forgotten here; its backups stay where they are:"]
    lines += [printable(f"  {region['name']}: {region['url']}") for region in kept]
    lines += [
        printable(
            f"  note: where source {source.name} was prepared and not released, its server keeps"
            " WAL until its disk is full"
        )
        for source in settings.sources
        if source.url.startswith("postgresql")
    ]
    lines.append(
        "  note: where it was deployed to Prefect, its schedules go on until 'kryonix deploy"
        f" {settings.id} --remove'"
    )
    lines.append(
        printable(
            f"bring it back with: kryonix catalog rebuild {settings.id}"
            f" --region 'primary={settings.primary.url}'"
        )
    )
    return Answer({"tenant": settings.id, "removed": True, "kept": kept}, lines)
