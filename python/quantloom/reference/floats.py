"""F32, F16 and BF16."""

from __future__ import annotations

import numpy as np

from quantloom.reference.layout import HALF, SHORT, Blocks, Floats, Layout, fields, to_float


def f32(blocks: Blocks) -> Floats:
    """IEEE binary32 as it stands."""
    return blocks["value"][:, None].astype(np.float32)


def f16(blocks: Blocks) -> Floats:
    """IEEE binary16."""
    return to_float(blocks["value"])[:, None]


def bf16(blocks: Blocks) -> Floats:
    """The upper half of an IEEE binary32."""
    return (blocks["value"].astype(np.uint32) << 16).view(np.float32)[:, None]


FORMATS = {
    "F32": Layout(1, fields(value="<f4"), f32),
    "F16": Layout(1, fields(value=HALF), f16),
    "BF16": Layout(1, fields(value=SHORT), bf16),
}
