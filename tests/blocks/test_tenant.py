"""What a tenant's settings say of its keys comes back out of the block."""

from __future__ import annotations

from dataclasses import asdict, fields

import pytest

from blocks.tenant import StoredKeys
from kryonix_backup.settings import KeySettings


@pytest.mark.parametrize(
    "keys",
    [
        KeySettings(),
        KeySettings("kms://?region=sa-east-1", "pkcs11:///m.so?token=t", 7, 14, 21, fips=True),
    ],
)
def test_keys_come_back(keys: KeySettings) -> None:
    stored = StoredKeys(**asdict(keys))

    again = StoredKeys.model_validate_json(stored.model_dump_json())

    assert KeySettings.from_plain(again.model_dump()) == keys


def test_every_setting_of_keys_has_its_field_with_a_description() -> None:
    assert set(StoredKeys.model_fields) == {field.name for field in fields(KeySettings)}
    for name, field in StoredKeys.model_fields.items():
        assert (field.description or "").endswith("."), name
