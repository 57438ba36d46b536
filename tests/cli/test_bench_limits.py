"""What a bench counts of a model, against counts by hand of small ones."""

from __future__ import annotations

from pathlib import Path

import pytest

import quantloom
from quantloom.bench import measure_limits, prefill_operations, read_per_token
from synthetic_model import Synthetic

# Of each of the two layers: queries and output, keys and values, gate, up and down.
LAYER = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64
HEAD = 96 * 64  # of the vocabulary and the embedding
NORMS = 5 * 64
TOKENS = 10
# A multiplication and an addition each: token n attends to n + 1 positions, keys and then values.
OPERATIONS = 2 * TOKENS * 2 * LAYER + 2 * 2 * 2 * 64 * sum(range(1, TOKENS + 1)) + 2 * HEAD


@pytest.mark.parametrize(
    ("recipe", "weight_bytes"),
    [
        (Synthetic(), 4 * (2 * LAYER + HEAD + NORMS)),
        (Synthetic(tied=True, format="Q8_0"), 34 * (2 * LAYER + HEAD) // 32 + 4 * NORMS),
    ],
    ids=["untied F32", "tied Q8_0"],
)
def test_limits(recipe: Synthetic, weight_bytes: int, tmp_path: Path) -> None:
    with quantloom.load(recipe.write(tmp_path), device="cpu") as model:
        assert read_per_token(model) == weight_bytes
        assert prefill_operations(model, TOKENS) == OPERATIONS
        limits = measure_limits(
            model, TOKENS, 4, 1e9, lambda device, shapes, tokens: (dict.fromkeys(shapes, 1e-6), "x")
        )
    cache_bytes = 12 * 2 * 2 * 32 * 2  # halfway: keys and values of two layers in 16 bits
    assert (limits.weight_bytes, limits.cache_bytes) == (weight_bytes, cache_bytes)
    assert limits.decode == pytest.approx(1e9 / (weight_bytes + cache_bytes))
    assert limits.product_rate == pytest.approx(2 * TOKENS * 2 * LAYER / (14 * 1e-6))
    assert limits.prefill == pytest.approx(TOKENS * limits.product_rate / OPERATIONS)
    assert (limits.read_bandwidth, limits.product) == (1e9, "x")
