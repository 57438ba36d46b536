"""A model that takes a while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import quantloom
from synthetic_model import Synthetic


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Big enough that a token takes some tenths of a millisecond."""
    recipe = Synthetic(
        layers=4, embedding=256, heads=4, head_size=64, feed_forward=768, context=2048
    )
    return recipe.write(tmp_path_factory.mktemp("under_way"))


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[quantloom.Model]:
    with quantloom.load(path, device="cpu") as model:
        yield model
