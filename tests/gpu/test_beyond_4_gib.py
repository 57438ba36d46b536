"""A quantized tensor of more than 4 GiB: neither its elements nor its bytes fit 32 bits."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from operations.products import activations, error, sane_blocks
from quantloom import Tensor, cuda, matmul, reference
from quantloom.formats import FORMATS

FORMAT = "Q8_0"
PERIOD = 251  # rows until the same come again; a row off by a tile or a power of two is another
GIB = 1 << 30


def check_rows(rows: int, columns: int) -> None:
    """A tensor's first rows, those around each border and its last, dequantized and multiplied.

    Two times its bytes, or its bytes and two a value, are in the GPU's memory at once.
    """
    kind = FORMATS[FORMAT]
    pool = sane_blocks(FORMAT)
    some = np.random.default_rng(rows).integers(0, len(pool), (PERIOD, columns // kind.elements))
    row_bytes = columns // kind.elements * kind.bytes
    blocks = np.resize(pool[some].reshape(PERIOD, row_bytes), (rows, row_bytes))
    tensor = Tensor.from_blocks(blocks, FORMAT, (rows, columns), "cuda")
    del blocks
    weights = reference.dequantize(pool[some].reshape(-1, kind.bytes), FORMAT)
    weights = weights.reshape(PERIOD, columns)

    parts = [range(3), range(rows // 2 - 2, rows // 2 + 2), range(rows - 130, rows)]
    # Where the blocks' bytes pass 4 GiB, the values' of 16 bits, and the number of values.
    for of_a_row in (row_bytes, 2 * columns, columns):
        middle = 4 * GIB // of_a_row
        if middle + 2 <= rows:
            parts.append(range(middle - 1, middle + 2))

    out = Tensor.empty((rows, columns), "float16", "cuda")
    tensor.dequantize("float16", out=out)
    for part in parts:
        found = out[part.start : part.stop].numpy()
        expected = weights[np.array(part) % PERIOD].astype(np.float16)
        np.testing.assert_array_equal(found.view(np.uint16), expected.view(np.uint16))
    del out
    gc.collect()
    cuda.trim()

    for tokens in (1, 8, 40, 129):
        x = activations(tokens, columns)
        product = matmul(Tensor(x, device="cuda"), tensor).numpy()
        for part in parts:
            wanted = weights[np.array(part) % PERIOD].astype(np.float64)
            found = product[:, part.start : part.stop]
            assert error(found, x, wanted) <= 1e-6, (tokens, part)
    assert tensor.is_packed
    found = tensor[rows - 130 :].dequantize("float16").numpy()
    expected = weights[np.arange(rows - 130, rows) % PERIOD].astype(np.float16)
    np.testing.assert_array_equal(found.view(np.uint16), expected.view(np.uint16))


@pytest.mark.measures_hardware
@pytest.mark.timeout(900)
def test_more_than_4_gib() -> None:
    cuda.trim()
    if cuda.memory().free <= 16 * GIB:
        pytest.skip("takes up to 16 GiB of the GPU's memory, and less is free")
    check_rows(4 * GIB // 8192 + 5000, 8192)
    gc.collect()
    cuda.trim()


def test_the_same_of_few_rows() -> None:
    """What the test above asserts holds where nothing is large."""
    check_rows(2 * PERIOD + 131, 256)
