from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import characters, text

from kryonix_backup.model import sort_key
from kryonix_backup.patterns import Patterns
from kryonix_backup.sources.postgres.dumping import paths

names = text(
    characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40
)


@given(schema=names, table=names)
def test_a_table_is_known_by_its_path(schema: str, table: str) -> None:
    path = paths.data_path(schema, table, 7)

    assert paths.table_of(path) == (schema, table)
    assert path.count(b"/") == 2
    assert sort_key(path) < sort_key(paths.data_path(schema, table, 8))


def test_a_schema_is_chosen_by_a_pattern() -> None:
    chosen = Patterns(("crm.*",), ())

    assert chosen.includes(paths.data_path("crm", "customer", 0), directory=False)
    assert not chosen.includes(paths.data_path("crm2", "customer", 0), directory=False)
    assert not chosen.includes(paths.data_path("auth", "crm.customer", 0), directory=False)


def test_large_objects_are_in_the_order_of_their_oids() -> None:
    assert paths.large_object_path(9) < paths.large_object_path(4_294_967_295)
