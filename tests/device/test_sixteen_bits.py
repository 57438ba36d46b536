"""What Tensor.dequantize rounds to sixteen bits, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from quantloom import Tensor, reference
from quantloom.formats import FORMATS

Bits = npt.NDArray[np.uint16]


def rounded(values: npt.NDArray[np.float32], dtype: str) -> Bits:
    """To nearest even, by NumPy or by hand."""
    if dtype == "float16":
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(np.float16).view(np.uint16)
    raw = values.view(np.uint32).astype(np.uint64)
    return ((raw + 0x7FFF + (raw >> 16 & 1)) >> 16).astype(np.uint16)


def bits_of(tensor: Tensor, dtype: str) -> Bits:
    """Of bfloat16 the upper half of the float32 that NumPy gets."""
    values = tensor.numpy()
    if dtype == "float16":
        return values.view(np.uint16)
    assert not (values.view(np.uint32) & 0xFFFF).any()
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def check(values: npt.NDArray[np.float32], tensor: Tensor, dtype: str) -> None:
    found = tensor.dequantize(dtype)
    assert (found.dtype, found.shape) == (dtype, tensor.shape)
    wanted = rounded(values.reshape(-1), dtype)
    number = ~np.isnan(values.reshape(-1))
    found_bits = bits_of(found, dtype).reshape(-1)
    np.testing.assert_array_equal(found_bits[number], wanted[number])
    assert np.isnan(found.numpy().reshape(-1)[~number]).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_floats(dtype: str) -> None:
    """Any bits; ties and their neighbours; the borders of overflow, of subnormals and of zero."""
    random = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint64)
    tie = 1 << (15 if dtype == "bfloat16" else 12)
    ties = np.arange(1 << 16, dtype=np.uint64) << 16 | tie
    borders = np.array(
        [0, 1, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x477FEFFF, 0x477FF000, 0x33000000],
        np.uint64,
    )
    bits = np.concatenate([random, ties - 1, ties, ties + 1, borders, borders | 1 << 31])
    values = bits.astype(np.uint32).view(np.float32)
    check(values, Tensor(values), dtype)
    check(values[::-3], Tensor(values[::-3]), dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_blocks(format: str, dtype: str) -> None:
    kind = FORMATS[format]
    blocks = np.random.default_rng(kind.id).integers(0, 256, (60, kind.bytes), np.uint8)
    values = reference.dequantize(blocks, format).reshape(-1)
    check(values, Tensor.from_blocks(blocks, format, (20, 3 * kind.elements)), dtype)
