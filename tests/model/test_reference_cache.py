"""The reference's rounding of its cache, and its last rows alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quantloom
from quantloom.reference import ReferenceModel
from quantloom.reference.forward import cached
from synthetic_model import VOCABULARY, Synthetic

TOKENS = [i * 7 % VOCABULARY for i in range(60)]
RECIPE = Synthetic(head_size=32, keys={"attention.sliding_window": 20})


def test_the_last_rows_alone(tmp_path: Path) -> None:
    with quantloom.open(RECIPE.write(tmp_path)) as file:
        model = ReferenceModel(file, "q8_0")
    whole = model.logits(TOKENS)
    for last in (1, 5, 60):
        np.testing.assert_allclose(model.logits(TOKENS, last=last), whole[-last:], rtol=1e-9)


@pytest.mark.parametrize(("cache_type", "kind"), [("f16", np.float16), ("q8_0", "q8_0")])
def test_the_cpu_rounds_its_cache_so(cache_type: str, kind: type | str, tmp_path: Path) -> None:
    """Beside a reference that rounds nothing the error is several times as large."""
    path = RECIPE.write(tmp_path)
    with quantloom.open(path) as file:
        rows = [ReferenceModel(file, each).logits(TOKENS) for each in (kind, np.float64)]
    with quantloom.load(path, device="cpu", cache_type=cache_type) as model:
        found = model.logits(TOKENS)
    same, exact = (np.linalg.norm(found - row) / np.linalg.norm(row) for row in rows)
    assert 3 * same <= exact, (same, exact)


def test_a_group_of_zeros_and_one_of_its_own_steps() -> None:
    x = np.zeros((1, 64))
    x[0, 32:] = np.arange(-16, 16) * 127 / 16
    kept = cached(x, "q8_0")
    assert not kept[0, :32].any()
    np.testing.assert_array_equal(kept[0, 32:], np.round(x[0, 32:]))
