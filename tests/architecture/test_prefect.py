"""The shell round the engine: entry points load, blocks explain themselves and keep secrets."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.blocks.core import Block
from prefect.flows import Flow
from pydantic import SecretStr

from tests.architecture.tree import ROOT, modules


def _blocks() -> Iterator[type[Block]]:
    for module in modules("blocks"):
        name = module.path.removesuffix(".py").replace("/", ".")
        for _, member in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if issubclass(member, Block) and member.__module__ == name:
                yield member


BLOCKS = sorted(_blocks(), key=lambda block: block.__name__)
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda row: row["name"])
def test_every_entry_point_loads(deployment: dict[str, str]) -> None:
    module, _, name = deployment["entrypoint"].rpartition(".")

    assert isinstance(getattr(importlib.import_module(module), name), Flow)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_a_block_and_its_fields_are_described(block: type[Block]) -> None:
    assert (block.__doc__ or "").strip().endswith(".")
    assert block._logo_url is not None
    for name, field in block.model_fields.items():
        assert (field.description or "").endswith("."), name


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_what_sounds_secret_is_kept_as_a_secret(block: type[Block]) -> None:
    telling = ("secret", "token", "password")
    for name, field in block.model_fields.items():
        if any(word in name for word in telling):
            assert "SecretStr" in str(field.annotation), name
            secret: dict[str, Any] = {name: SecretStr("do-not-show")}
            filled = block.model_construct(**secret)
            assert "do-not-show" not in repr(filled)


def test_a_plane_without_logic_reads_no_bytes() -> None:
    readers = {"open(", ".read_bytes(", ".write_bytes("}
    found = [
        module.path
        for module in modules("flows", "tasks", "blocks")
        if any(reader in module.text for reader in readers)
    ]

    assert not found, Path(found[0])
