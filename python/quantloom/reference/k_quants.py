"""Q2_K to Q6_K: 256 weights in groups of 16 or 32, whose scales are small integers themselves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantloom.reference.layout import (
    BYTE,
    HALF,
    SIGNED_BYTE,
    Blocks,
    Bytes,
    Floats,
    Layout,
    bits,
    fields,
    flat,
    planes,
    scaled,
    to_float,
)


def two_bits(quants: Bytes) -> NDArray[np.int64]:
    """256 two-bit numbers from 64 bytes: each 32 bytes hold 4 x 32 weights, lowest bits first."""
    return flat(planes(quants.reshape(-1, 2, 32), 2, 4), 256)


def four_bits(quants: Bytes) -> NDArray[np.int64]:
    """256 nibbles from 128 bytes: each 32 bytes hold 2 x 32 weights, low nibbles first."""
    return flat(planes(quants.reshape(-1, 4, 32), 4, 2), 256)


def one_bit(mask: Bytes) -> NDArray[np.int64]:
    """256 bits from 32 bytes: bit g of byte i belongs to weight 32 g + i."""
    return flat(planes(mask, 1, 8), 256)


def six_bit_pairs(packed: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Eight scales and eight minima of six bits from the 12 bytes of Q4_K and Q5_K.

    The first four of each lie in the low six bits of bytes 0-3 and 4-7; of the last four the low
    nibbles lie in bytes 8-11 (scale low, minimum high) and the upper two bits on top of bytes 0-7.
    """
    first = packed[:, 0:4].astype(np.int64)
    second = packed[:, 4:8].astype(np.int64)
    third = packed[:, 8:12].astype(np.int64)
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6) << 4], axis=1)
    minima = np.concatenate([second & 63, (third >> 4) | (second >> 6) << 4], axis=1)
    return scales, minima


def products(d: NDArray[np.float16], integers: NDArray[np.int64]) -> Floats:
    """The block's half scale times each group's integer."""
    return to_float(d)[:, None] * to_float(integers)


def q2_k(blocks: Blocks) -> Floats:
    """(d * low nibble) * q - dmin * high nibble, per 16 weights."""
    pairs = bits(blocks["scales"], 4, 2)
    scale = products(blocks["d"], pairs[..., 0])
    minimum = products(blocks["dmin"], pairs[..., 1])
    return scaled(scale, two_bits(blocks["quants"]), -minimum)


def q3_k(blocks: Blocks) -> Floats:
    """(d * (scale - 32)) * (q - 4), per 16 weights; the scales' 12 bytes are 8 low, 4 high."""
    low = flat(planes(blocks["scales"][:, :8], 4, 2), 16)
    high = flat(planes(blocks["scales"][:, 8:], 2, 4), 16)
    scale = products(blocks["d"], (low | high << 4) - 32)
    return scaled(scale, two_bits(blocks["quants"]) + 4 * one_bit(blocks["high"]) - 4)


def q4_k(blocks: Blocks) -> Floats:
    """(d * scale) * nibble - dmin * minimum, per 32 weights."""
    scales, minima = six_bit_pairs(blocks["scales"])
    scale, minimum = products(blocks["d"], scales), products(blocks["dmin"], minima)
    return scaled(scale, four_bits(blocks["quants"]), -minimum)


def q5_k(blocks: Blocks) -> Floats:
    """(d * scale) * q - dmin * minimum, per 32 weights."""
    scales, minima = six_bit_pairs(blocks["scales"])
    scale, minimum = products(blocks["d"], scales), products(blocks["dmin"], minima)
    return scaled(scale, four_bits(blocks["quants"]) + 16 * one_bit(blocks["high"]), -minimum)


def q6_k(blocks: Blocks) -> Floats:
    """(d * scale) * (q - 32), per 16 weights; each 64 low bytes hold 2 x 64 weights."""
    low = flat(planes(blocks["low"].reshape(-1, 2, 64), 4, 2), 256)
    q = low + 16 * two_bits(blocks["high"]) - 32
    return scaled(products(blocks["d"], blocks["scales"].astype(np.int64)), q)


FORMATS = {
    "Q2_K": Layout(256, fields(scales=(BYTE, 16), quants=(BYTE, 64), d=HALF, dmin=HALF), q2_k),
    "Q3_K": Layout(
        256, fields(high=(BYTE, 32), quants=(BYTE, 64), scales=(BYTE, 12), d=HALF), q3_k
    ),
    "Q4_K": Layout(256, fields(d=HALF, dmin=HALF, scales=(BYTE, 12), quants=(BYTE, 128)), q4_k),
    "Q5_K": Layout(
        256,
        fields(d=HALF, dmin=HALF, scales=(BYTE, 12), high=(BYTE, 32), quants=(BYTE, 128)),
        q5_k,
    ),
    "Q6_K": Layout(
        256, fields(low=(BYTE, 128), high=(BYTE, 64), scales=(SIGNED_BYTE, 16), d=HALF), q6_k
    ),
}
