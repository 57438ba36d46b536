"""IQ1, IQ2, IQ3 (indices into a list of weight vectors, a grid) and IQ4 (a table of 16 values)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantloom.reference.grids import GRIDS
from quantloom.reference.layout import (
    BYTE,
    HALF,
    SHORT,
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

IQ4_VALUES = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int64
)

# Seven stored signs, and an eighth that makes the number of minus signs even.
_SEVEN = bits(np.arange(128), 1, 7)
SIGNS = 1 - 2 * np.concatenate([_SEVEN, _SEVEN.sum(axis=1, keepdims=True) % 2], axis=1)


def eight_signs(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """1 or -1 for each bit of each byte."""
    return 1 - 2 * bits(mask, 1, 8)


def half_steps(d: NDArray[np.float16], scales: NDArray[np.int64], factor: float) -> Floats:
    """d * (scale + 1/2) * factor per group, exact in float32."""
    steps: Floats = (to_float(scales) + np.float32(0.5)) * np.float32(factor)
    return to_float(d)[:, None] * steps


def odd_steps(d: Floats, scales: NDArray[np.int64]) -> Floats:
    """d * (2 * scale + 1) per group, exact in float32."""
    return d[:, None] * to_float(2 * scales + 1)


def signs_and_scale(words: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """From each word four times eight signs and, from its top four bits, the scale."""
    return SIGNS[bits(words, 7, 4)], words.astype(np.int64) >> 28


def iq2_xxs(blocks: Blocks) -> Floats:
    """Per 32 weights a word of four grid indices and a word of signs and scale."""
    words = blocks["words"].reshape(-1, 8, 2)
    rows = GRIDS["IQ2_XXS"][bits(words[..., 0], 8, 4)]
    signs, scales = signs_and_scale(words[..., 1])
    return scaled(half_steps(blocks["d"], scales, 0.25), flat(rows * signs, 256))


def iq2_xs(blocks: Blocks) -> Floats:
    """Per 8 weights nine bits of grid index and seven of signs; scales per 16."""
    packed = blocks["quants"].astype(np.int64)
    q = GRIDS["IQ2_XS"][packed & 511] * SIGNS[packed >> 9]
    scales = flat(bits(blocks["scales"], 4, 2), 16)
    return scaled(half_steps(blocks["d"], scales, 0.25), flat(q, 256))


def iq2_s(blocks: Blocks) -> Floats:
    """Per 8 weights ten bits of grid index and eight signs; scales per 16."""
    index = blocks["indices"] + 256 * flat(bits(blocks["high"], 2, 4), 32)
    q = GRIDS["IQ2_S"][index] * eight_signs(blocks["signs"])
    scales = flat(bits(blocks["scales"], 4, 2), 16)
    return scaled(half_steps(blocks["d"], scales, 0.25), flat(q, 256))


def iq3_xxs(blocks: Blocks) -> Floats:
    """Per 4 weights a byte of grid index; per 32 a word of signs and scale."""
    rows = flat(GRIDS["IQ3_XXS"][blocks["indices"]], 256)
    signs, scales = signs_and_scale(blocks["words"])
    return scaled(half_steps(blocks["d"], scales, 0.5), rows * flat(signs, 256))


def iq3_s(blocks: Blocks) -> Floats:
    """Per 4 weights nine bits of grid index, per 8 a byte of signs; scales per 32."""
    index = blocks["indices"] + 256 * flat(bits(blocks["high"], 1, 8), 64)
    q = flat(GRIDS["IQ3_S"][index], 256) * flat(eight_signs(blocks["signs"]), 256)
    scales = flat(bits(blocks["scales"], 4, 2), 8)
    return scaled(odd_steps(to_float(blocks["d"]), scales), q)


def shifted(scale: Floats, index: NDArray[np.int64], minus: NDArray[np.int64]) -> Floats:
    """scale * (grid weight + 1/8), or - 1/8 where `minus`; index and minus per 8 weights."""
    shift = np.where(minus == 1, np.float32(-0.125), np.float32(0.125))
    values = to_float(GRIDS["IQ1"][index]) + shift[..., None]
    return scaled(scale, flat(values, 256))


def iq1_s(blocks: Blocks) -> Floats:
    """Per 32 weights 16 bits: four times three index bits, the scale and the shift's sign."""
    high = blocks["high"].astype(np.int64)
    index = blocks["indices"] + 256 * flat(bits(high, 3, 4), 32)
    minus = np.repeat(high >> 15, 4, axis=1)
    return shifted(odd_steps(to_float(blocks["d"]), high >> 12 & 7), index, minus)


def iq1_m(blocks: Blocks) -> Floats:
    """Per 8 weights a nibble: three index bits and the shift's sign; d in four pieces."""
    nibble = flat(bits(blocks["high"], 4, 2), 32)
    words = blocks["scales"].astype(np.int64)
    pieces = (words >> 12) << np.array([0, 4, 8, 12])
    d = pieces.sum(axis=1).astype("<u2").view("<f2")
    scales = flat(bits(words, 3, 4), 16)
    index = blocks["indices"] + 256 * (nibble & 7)
    return shifted(odd_steps(to_float(d), scales), index, nibble >> 3)


def iq4_nl(blocks: Blocks) -> Floats:
    """d * table[nibble]."""
    codes = flat(planes(blocks["quants"], 4, 2), 32)
    return scaled(to_float(blocks["d"])[:, None], IQ4_VALUES[codes])


def iq4_xs(blocks: Blocks) -> Floats:
    """(d * (scale - 32)) * table[nibble], per 32 weights."""
    low = flat(bits(blocks["scales_low"], 4, 2), 8)
    scales = (low | bits(blocks["scales_high"], 2, 8) << 4) - 32
    codes = flat(planes(blocks["quants"].reshape(-1, 8, 16), 4, 2), 256)
    return scaled(to_float(blocks["d"])[:, None] * to_float(scales), IQ4_VALUES[codes])


FORMATS = {
    "IQ2_XXS": Layout(256, fields(d=HALF, words=(WORD, 16)), iq2_xxs),
    "IQ2_XS": Layout(256, fields(d=HALF, quants=(SHORT, 32), scales=(BYTE, 8)), iq2_xs),
    "IQ2_S": Layout(
        256,
        fields(d=HALF, indices=(BYTE, 32), signs=(BYTE, 32), high=(BYTE, 8), scales=(BYTE, 8)),
        iq2_s,
    ),
    "IQ3_XXS": Layout(256, fields(d=HALF, indices=(BYTE, 64), words=(WORD, 8)), iq3_xxs),
    "IQ3_S": Layout(
        256,
        fields(d=HALF, indices=(BYTE, 64), high=(BYTE, 8), signs=(BYTE, 32), scales=(BYTE, 4)),
        iq3_s,
    ),
    "IQ1_S": Layout(256, fields(d=HALF, indices=(BYTE, 32), high=(SHORT, 8)), iq1_s),
    "IQ1_M": Layout(256, fields(indices=(BYTE, 32), high=(BYTE, 16), scales=(SHORT, 4)), iq1_m),
    "IQ4_NL": Layout(32, fields(d=HALF, quants=(BYTE, 16)), iq4_nl),
    "IQ4_XS": Layout(
        256, fields(d=HALF, scales_high=SHORT, scales_low=(BYTE, 4), quants=(BYTE, 128)), iq4_xs
    ),
}
