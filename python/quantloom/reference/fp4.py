"""MXFP4 and NVFP4: four-bit floats (E2M1) with a scale per 32 or 16."""

from __future__ import annotations

import numpy as np

from quantloom.reference.layout import BYTE, Blocks, Floats, Layout, fields, flat, planes, scaled

# E2M1 is sign, two exponent bits, one mantissa bit; code 8, minus zero, decodes to plus zero.
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def mxfp4(blocks: Blocks) -> Floats:
    """2^(e - 127) * E2M1. e = 255, NaN in the MX standard, is 2^128 here, as in ggml."""
    # Doubled values keep the product in range: 2^(e - 128) always has a float32, 2^128 has none.
    half_scale = np.ldexp(np.float32(1), blocks["e"].astype(np.int32) - 128)
    doubled = E2M1 * np.float32(2)
    codes = flat(planes(blocks["quants"], 4, 2), 32)
    return scaled(half_scale.astype(np.float32)[:, None], doubled[codes])


def nvfp4(blocks: Blocks) -> Floats:
    """E4M3 scale * E2M1, per 16 weights. Scale code 127 (NaN) is 0; the top bit is ignored."""
    code = blocks["scales"].astype(np.int64)
    exponent, mantissa = code >> 3 & 15, code & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    subnormal = np.ldexp(mantissa / 8, -6)
    scale = np.where(exponent == 0, subnormal, normal)
    scale = np.where(code == 127, 0, scale).astype(np.float32)
    codes = flat(planes(blocks["quants"].reshape(-1, 4, 8), 4, 2), 64)
    return scaled(scale, E2M1[codes])


FORMATS = {
    "MXFP4": Layout(32, fields(e=BYTE, quants=(BYTE, 16)), mxfp4),
    "NVFP4": Layout(64, fields(scales=(BYTE, 4), quants=(BYTE, 32)), nvfp4),
}
