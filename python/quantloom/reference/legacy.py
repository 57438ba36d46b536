"""Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0: 32 weights with one scale, and in the _1 types one offset.

Byte i of `quants` holds weight i in its low and weight i + 16 in its high nibble.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantloom.reference.layout import (
    BYTE,
    HALF,
    SIGNED_BYTE,
    WORD,
    Blocks,
    Floats,
    Layout,
    bits,
    fields,
    flat,
    planes,
    scaled,
    to_float,
)


def nibbles(blocks: Blocks) -> NDArray[np.int64]:
    """The 32 nibbles in the order of the weights."""
    return flat(planes(blocks["quants"], 4, 2), 32)


def five_bits(blocks: Blocks) -> NDArray[np.int64]:
    """Nibbles with their fifth bit, which is bit i of `high` for weight i."""
    return nibbles(blocks) + 16 * bits(blocks["high"], 1, 32)


def scale_of(blocks: Blocks) -> Floats:
    """The block's scale as one group."""
    return to_float(blocks["d"])[:, None]


def offset_of(blocks: Blocks) -> Floats:
    """The block's offset as one group."""
    return to_float(blocks["m"])[:, None]


def q4_0(blocks: Blocks) -> Floats:
    """d * (nibble - 8)."""
    return scaled(scale_of(blocks), nibbles(blocks) - 8)


def q4_1(blocks: Blocks) -> Floats:
    """d * nibble + m."""
    return scaled(scale_of(blocks), nibbles(blocks), offset_of(blocks))


def q5_0(blocks: Blocks) -> Floats:
    """d * (q - 16)."""
    return scaled(scale_of(blocks), five_bits(blocks) - 16)


def q5_1(blocks: Blocks) -> Floats:
    """d * q + m."""
    return scaled(scale_of(blocks), five_bits(blocks), offset_of(blocks))


def q8_0(blocks: Blocks) -> Floats:
    """d * q."""
    return scaled(scale_of(blocks), blocks["quants"])


FORMATS = {
    "Q4_0": Layout(32, fields(d=HALF, quants=(BYTE, 16)), q4_0),
    "Q4_1": Layout(32, fields(d=HALF, m=HALF, quants=(BYTE, 16)), q4_1),
    "Q5_0": Layout(32, fields(d=HALF, high=WORD, quants=(BYTE, 16)), q5_0),
    "Q5_1": Layout(32, fields(d=HALF, m=HALF, high=WORD, quants=(BYTE, 16)), q5_1),
    "Q8_0": Layout(32, fields(d=HALF, quants=(SIGNED_BYTE, 32)), q8_0),
}
