"""The kinds of words that commands take."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from kryonix_backup.errors import UsageError

if TYPE_CHECKING:
    from kryonix_backup.sdk.client import Client
    from kryonix_backup.settings import RegionSettings

F = TypeVar("F", bound=Callable[..., Any])


class NameAndValue(click.ParamType[tuple[str, str]]):
    """``NAME=VALUE``, as a pair."""

    def __init__(self, value: str) -> None:
        self.name = f"NAME={value}"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, rest = str(value).partition("=")
        if not name or not equals or not rest:
            self.fail(f"{value!r} is not like {self.name}", param, ctx)
        return name, rest


class Moment(click.ParamType[datetime]):
    """A time of ISO 8601; without a zone it is in UTC."""

    name = "TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time like 2026-11-23T21:40:05Z", param, ctx)
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


NAME_URL = NameAndValue("URL")
NAME_PATTERN = NameAndValue("PATTERN")
NAME_JURISDICTION = NameAndValue("JURISDICTION")
MOMENT = Moment()
_JURISDICTIONS = "kryonix.jurisdictions"


def _complete_tenant(
    _context: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from kryonix_backup.sdk.tenants import tenant_ids

    return [CompletionItem(each) for each in tenant_ids() if each.startswith(incomplete)]


def tenant_argument(command: F) -> F:
    """The tenant's id as the argument ``tenant``."""
    return click.argument("tenant", metavar="ID", shell_complete=_complete_tenant)(command)


def _remember_jurisdictions(
    context: click.Context, _param: click.Parameter, pairs: tuple[tuple[str, str], ...]
) -> None:
    """For `named_regions`: no command does anything else with them."""
    context.meta[_JURISDICTIONS] = dict(pairs)


def region_options(command: F) -> F:
    """Where to find the tenant's repository: the options ``region`` and ``from_region``."""
    command = click.option(
        "--jurisdiction", type=NAME_JURISDICTION, multiple=True,
        expose_value=False, callback=_remember_jurisdictions,
        help="Where the region that --region names is, such as primary=BR; repeatable.",
    )(command)  # fmt: skip
    command = click.option(
        "--from-region", metavar="NAME", help="Read from this region instead of the primary one."
    )(command)
    return click.option(
        "--region", "regions", type=NAME_URL, multiple=True,
        help="Use the repository here, whether the tenant is registered or not; repeatable.",
    )(command)  # fmt: skip


def named_regions(pairs: tuple[tuple[str, str], ...]) -> list[RegionSettings]:
    """Regions out of pairs of name and URL; raises InvalidName, ConfigError and UsageError."""
    from kryonix_backup.settings import RegionSettings

    context = click.get_current_context(silent=True)
    places: dict[str, str] = {} if context is None else context.meta.get(_JURISDICTIONS, {})
    names = [name for name, _ in pairs]
    if strange := [name for name in places if name not in names]:
        raise UsageError(f"--jurisdiction names region {strange[0]!r}, which --region does not")
    rows = [{"name": name, "url": url, "jurisdiction": places.get(name)} for name, url in pairs]
    return [RegionSettings.from_plain(row) for row in rows]


def connected(tenant: str, regions: tuple[tuple[str, str], ...], from_region: str | None) -> Client:
    """The client that a command's tenant and region options name."""
    from kryonix_backup.sdk.tenants import connect

    return connect(tenant, regions=named_regions(regions), from_region=from_region, env=os.environ)
