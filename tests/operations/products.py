"""What tests of `quantloom.matmul` share: matrices of every format, and a guarded output."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from quantloom import Tensor, matmul, reference
from quantloom.formats import FORMATS

Array = npt.NDArray[np.float32]

QUANTIZED = [name for name, kind in FORMATS.items() if kind.served and kind.elements > 1]
BOUNDS = {"exact": 1e-6, "fast": 5e-4}
TOKENS = [*range(1, 10), 15, 16, 17, 63, 64, 65, 127, 128, 129, 513]

_GUARD = 64
_SENTINEL = np.float32(-1234.5)


@cache
def sane_blocks(format: str, least: float = 0.02, most: float = 2) -> npt.NDArray[np.uint8]:
    """Random bit patterns of blocks whose weights are finite, the largest between the limits."""
    kind = FORMATS[format]
    random = np.random.default_rng(kind.id)
    good = np.empty((0, kind.bytes), np.uint8)
    for _ in range(20):
        blocks = random.integers(0, 256, (20_000, kind.bytes), np.uint8)
        with np.errstate(all="ignore"):
            values = np.abs(reference.dequantize(blocks, format)).max(axis=1)
        good = np.concatenate([good, blocks[(values > least) & (values < most)]])
        if len(good) > 100:
            return good
    raise AssertionError(format)


def matrix(format: str, rows: int, columns: int) -> tuple[Tensor, npt.NDArray[np.float64]]:
    """A matrix on the CPU and its weights."""
    kind = FORMATS[format]
    random = np.random.default_rng([rows, columns])
    pool = sane_blocks(format)
    blocks = pool[random.integers(0, len(pool), rows * columns // kind.elements)]
    weights = reference.dequantize(blocks, format).reshape(rows, columns).astype(np.float64)
    return Tensor.from_blocks(blocks, format, (rows, columns)), weights


def activations(tokens: int, columns: int) -> Array:
    """Normal numbers."""
    random = np.random.default_rng(columns)
    return random.standard_normal((tokens, columns)).astype(np.float32)


def error(found: Array, x: npt.NDArray[Any], weights: npt.NDArray[np.float64]) -> float:
    """Normalized mean square error of x times the transpose of the weights, against float64.

    Or a tenth of the largest square error of a single output, where that is more; infinite where
    a value is not finite. Sums that happen to cancel, as single ones may, are measured against what
    independent terms of this size give.
    """
    if not np.isfinite(found).all():
        return float("inf")
    wide = x.astype(np.float64)
    exact = wide @ weights.T
    wanted, missed = np.square(exact), np.square(found - exact)
    usual = np.outer(np.square(wide).sum(axis=1), np.square(weights).sum(axis=1)) / x.shape[-1]
    whole = missed.sum() / np.maximum(wanted.sum(), usual.sum())
    single = (missed / np.maximum(wanted, usual)).max()
    return float(np.maximum(whole, single / 10))  # NaN, which passes no bound, if one is


def guarded(x: Tensor, w: Tensor, precision: str) -> Array:
    """The product, written over NaN between sentinels that are checked."""
    count = x.shape[0] * w.shape[0]
    room = np.full(count + 2 * _GUARD, _SENTINEL)
    room[_GUARD:-_GUARD] = np.nan
    there = Tensor(room, device=x.device)
    out = there[_GUARD : _GUARD + count].reshape(x.shape[0], w.shape[0])
    assert matmul(x, w, precision, out=out) is out
    found = there.numpy()
    assert (found[:_GUARD] == _SENTINEL).all() and (found[-_GUARD:] == _SENTINEL).all()
    result: Array = found[_GUARD:-_GUARD].reshape(out.shape)
    return result
