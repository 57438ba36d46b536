"""TQ1_0 and TQ2_0: weights of -1, 0 and 1 with one scale per 256."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantloom.reference.k_quants import two_bits
from quantloom.reference.layout import (
    BYTE,
    HALF,
    Blocks,
    Bytes,
    Floats,
    Layout,
    fields,
    scaled,
    to_float,
)


def trits(packed: Bytes, digits: int) -> NDArray[np.int64]:
    """The first `digits` ternary digits of each byte, minus 1: [n, digits * bytes], digit-major.

    A byte is a fraction of 256. Multiplying by 3 moves its next digit above the byte.
    """
    rest = packed.astype(np.int64)
    found = []
    for _ in range(digits):
        rest = rest * 3
        found.append((rest >> 8) - 1)
        rest = rest & 255
    return np.concatenate(found, axis=1)


def tq1_0(blocks: Blocks) -> Floats:
    """d * trit: 32 bytes of five, 16 bytes of five, 4 bytes of four."""
    quants = blocks["quants"]
    q = [trits(quants[:, :32], 5), trits(quants[:, 32:], 5), trits(blocks["rest"], 4)]
    return scaled(to_float(blocks["d"])[:, None], np.concatenate(q, axis=1))


def tq2_0(blocks: Blocks) -> Floats:
    """d * (q - 1), two bits each."""
    return scaled(to_float(blocks["d"])[:, None], two_bits(blocks["quants"]) - 1)


FORMATS = {
    "TQ1_0": Layout(256, fields(quants=(BYTE, 48), rest=(BYTE, 4), d=HALF), tq1_0),
    "TQ2_0": Layout(256, fields(quants=(BYTE, 64), d=HALF), tq2_0),
}
