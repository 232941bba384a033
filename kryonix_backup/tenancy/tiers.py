"""
The tiers: what a tenant was promised, and how much it may take. Data, from one file of YAML.

The file is checked as a whole when it is read, and what is wrong is named by its line. Nothing in
the engine knows a tier by its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kryonix_backup.errors import ConfigError
from kryonix_backup.limits import Limits, read_bandwidth, read_count, read_memory
from kryonix_backup.model import Tier, check_name
from kryonix_backup.settings import TenantSettings

if TYPE_CHECKING:
    from yaml.nodes import Node

T = TypeVar("T")

SHIPPED = Path(__file__).with_name("tiers.yaml")
QUEUES = ("high", "normal", "low")

_LEAST_RPO_S = 120  # a schedule has minutes, and one of them goes to the run itself
_SECONDS = {"s": 1, "min": 60, "h": 3600}
_SPAN = re.compile(r"([0-9]{1,6}) ?(s|min|h|days|years)", re.ASCII)
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%", re.ASCII)
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Keep:
    """How many snapshots are kept of each age."""

    daily: int
    weekly: int
    monthly: int
    yearly: int


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """After how many days each kind of key is replaced."""

    master_days: int
    data_days: int
    archive_days: int


@dataclass(frozen=True, slots=True)
class Terms:
    """
    Everything a tier says.

    At most ``rpo_s`` of a tenant's data is lost, and it is restored within ``rto_s``.
    ``archive_years`` is 0 where no archive copy is kept.
    """

    name: Tier
    rpo_s: int
    rto_s: int
    availability_percent: float
    queue: str
    private_network: bool
    limits: Limits
    keep: Keep
    archive_years: int
    key_rotation: KeyRotation

    def to_plain(self) -> dict[str, Any]:
        """The terms as JSON can say them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Tiers:
    """The tiers of one file, in its order; ``default`` is that of a tenant who names none."""

    file: Path
    default: Tier
    terms: tuple[Terms, ...]

    def __iter__(self) -> Iterator[Terms]:
        return iter(self.terms)

    @property
    def names(self) -> tuple[Tier, ...]:
        """The names, each of which is a work pool's too."""
        return tuple(each.name for each in self.terms)

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def of(self, name: str) -> Terms:
        """The terms of the tier of that name; raises ConfigError."""
        for each in self.terms:
            if each.name == name:
                return each
        raise ConfigError(
            f"there is no tier {name!r}; the tiers are {', '.join(self.names)}",
            f"Use one of them, or add it to a copy of {self.file} that KRYONIX_TIERS names.",
        )

    def limits_of(self, settings: TenantSettings) -> Limits:
        """What a tenant may take: its tier's limits, and its own where they are below."""
        return self.of(settings.tier).limits.lowered(settings.limits)

    def check(self, settings: TenantSettings) -> None:
        """
        Raise ConfigError where the tenant has what its tier does not give.

        That is a limit above the tier's, or a network of its own; an unknown tier gives nothing.
        """
        terms = self.of(settings.tier)
        for region in settings.regions:
            if region.network and not terms.private_network:
                named = ", ".join(region.network)
                raise ConfigError(
                    f"region {region.name} of tenant {settings.id} has a network of its own"
                    f" ({named}), and tier {settings.tier} has none",
                    "Leave it out, give the tenant a tier with private_network, or use what holds"
                    f" for the whole machine (docs/isolation.md); {self.file} has the tiers.",
                )
        limits = terms.limits
        if (name := settings.limits.above(limits)) is not None:
            raise ConfigError(
                f"the limit {name} of tenant {settings.id} is above that of tier {settings.tier}",
                f"Lower it, or give the tenant a tier that allows it; {self.file} has the tiers.",
            )


def load_tiers(env: Mapping[str, str]) -> Tiers:
    """The tiers of the file that ``KRYONIX_TIERS`` names, or those shipped; raises ConfigError."""
    return read_tiers(Path(env.get("KRYONIX_TIERS") or SHIPPED))


def read_tiers(path: Path) -> Tiers:
    """The tiers of a file; raises ConfigError, naming the line of what is wrong."""
    import yaml  # takes as long to import as the rest of the command

    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode()
        node = yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if node is None:
        raise ConfigError(f"{path} is empty", f"Begin with a copy of {SHIPPED}.")
    return _tiers(_Place(path, node, "the file"))


class _Place:
    """One value of the file, and where it stands."""

    def __init__(self, path: Path, node: Node, what: str) -> None:
        self.path = path
        self.what = what
        self.line = node.start_mark.line + 1
        self._node = node

    def wrong(self, why: str) -> ConfigError:
        """The error that names the line."""
        return ConfigError(
            f"{self.path} line {self.line}: {why}",
            f"Correct the line and try 'kryonix tiers --file {self.path}'.",
        )

    def rows(self) -> dict[str, _Place]:
        """The values of a mapping, by their names."""
        from yaml.nodes import MappingNode

        if not isinstance(self._node, MappingNode):
            raise self.wrong(f"{self.what} is not a mapping")
        found: dict[str, _Place] = {}
        for key, value in self._node.value:
            name = str(key.value)
            place = _Place(self.path, value, name)
            place.line = key.start_mark.line + 1
            if name in found:
                raise place.wrong(f"{name!r} stands twice in {self.what}")
            found[name] = place
        return found

    def fields(self, *names: str) -> dict[str, _Place]:
        """The values of a mapping that has exactly these names."""
        rows = self.rows()
        for name in rows:
            if name not in names:
                raise rows[name].wrong(f"{self.what} has no setting {name!r}")
        for name in names:
            if name not in rows:
                raise self.wrong(f"{self.what} lacks {name!r}")
        return rows

    def text(self) -> str:
        """A value that is no list and no mapping."""
        from yaml.nodes import ScalarNode

        if not isinstance(self._node, ScalarNode):
            raise self.wrong(f"{self.what} is not a single value")
        return str(self._node.value)

    def read(self, reader: Callable[[str], T]) -> T:
        """The value as the reader understands it, whose ConfigError gets the line."""
        try:
            return reader(self.text())
        except ConfigError as error:
            raise self.wrong(error.message) from error

    def span(self, *units: str) -> int:
        """A number of one of these units; those of time in seconds."""
        found = _SPAN.fullmatch(self.text())
        if found is None or found[2] not in units or not int(found[1]):
            raise self.wrong(f"{self.what} is {self.text()!r}, not a number of {', '.join(units)}")
        return int(found[1]) * _SECONDS.get(found[2], 1)

    def flag(self) -> bool:
        """yes or no."""
        if self.text() not in ("yes", "no"):
            raise self.wrong(f"{self.what} is {self.text()!r}, neither yes nor no")
        return self.text() == "yes"

    def count(self) -> int:
        """A whole number from 0 on."""
        text = self.text()
        return 0 if text == "0" else self.read(lambda given: read_count(self.what, given))


def _tiers(place: _Place) -> Tiers:
    fields = place.fields("default", "tiers")
    rows = fields["tiers"].rows()
    if not rows:
        raise fields["tiers"].wrong("there is no tier")
    terms = tuple(_terms(name, row) for name, row in rows.items())
    default = fields["default"].text()
    if default not in rows:
        raise fields["default"].wrong(f"the default {default!r} is not among the tiers")
    return Tiers(place.path, Tier(default), terms)


def _terms(name: str, place: _Place) -> Terms:
    place.what = f"tier {name}"
    rows = place.fields(
        "rpo", "rto", "availability", "queue", "private_network", "limits", "keep", "archive",
        "key_rotation",
    )  # fmt: skip
    try:
        check_name(name, "tier")
    except ConfigError as error:
        raise place.wrong(error.message) from error
    rpo_s = rows["rpo"].span("s", "min", "h")
    if rpo_s < _LEAST_RPO_S:
        raise rows["rpo"].wrong(f"an rpo of {rpo_s} s is below {_LEAST_RPO_S} s")
    queue = rows["queue"].text()
    if queue not in QUEUES:
        raise rows["queue"].wrong(f"the queue is {queue!r}, none of {', '.join(QUEUES)}")
    archive = rows["archive"]
    return Terms(
        name=Tier(name),
        rpo_s=rpo_s,
        rto_s=rows["rto"].span("s", "min", "h"),
        availability_percent=_percent(rows["availability"]),
        queue=queue,
        private_network=rows["private_network"].flag(),
        limits=_limits(rows["limits"]),
        keep=_keep(rows["keep"]),
        archive_years=0 if archive.text() == "no" else archive.span("years"),
        key_rotation=_rotation(rows["key_rotation"]),
    )


def _percent(place: _Place) -> float:
    found = _PERCENT.fullmatch(place.text())
    if found is None or not 0 < float(found[1]) <= 100:
        raise place.wrong(f"availability is {place.text()!r}, not like '99.9 %'")
    return float(found[1])


def _limits(place: _Place) -> Limits:
    rows = place.fields("workers", "cores", "memory", "bandwidth")
    return Limits(
        cores=rows["cores"].read(lambda given: read_count("cores", given)),
        memory_bytes=rows["memory"].read(read_memory),
        bandwidth_bits_s=rows["bandwidth"].read(read_bandwidth),
        workers=rows["workers"].read(lambda given: read_count("workers", given)),
    )


def _keep(place: _Place) -> Keep:
    rows = place.fields("daily", "weekly", "monthly", "yearly")
    kept = Keep(**{name: row.count() for name, row in rows.items()})
    if not any(asdict(kept).values()):
        raise place.wrong("no snapshot would be kept")
    return kept


def _rotation(place: _Place) -> KeyRotation:
    rows = place.fields("master", "data", "archive")
    return KeyRotation(*(rows[name].span("days") for name in ("master", "data", "archive")))
