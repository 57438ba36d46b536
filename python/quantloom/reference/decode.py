"""The table of the NumPy decoders, and `dequantize` over it."""

from __future__ import annotations

import numpy as np

from quantloom import arguments
from quantloom.errors import InvalidArgument
from quantloom.reference import floats, fp4, i_quants, k_quants, legacy, ternary
from quantloom.reference.layout import Bytes, Floats, Layout

__all__ = ["FORMATS", "Layout", "dequantize"]

FORMATS: dict[str, Layout] = {
    **floats.FORMATS,
    **legacy.FORMATS,
    **k_quants.FORMATS,
    **i_quants.FORMATS,
    **ternary.FORMATS,
    **fp4.FORMATS,
}


def dequantize(blocks: bytes | bytearray | memoryview | Bytes, format: str) -> Floats:
    """float32 values of blocks of `format`, such as "Q4_K".

    Args:
        blocks: raw bytes, or a uint8 array of shape [..., bytes]; its last axis is a row of blocks.
        format: GGUF type name, in any case.

    Returns:
        float32 [..., elements], one value per weight in logical order.

    Raises:
        InvalidArgument: a format without a decoder, what is no bytes, or a row that is not whole
            blocks.
    """
    layout = FORMATS.get(format.upper()) if isinstance(format, str) else None
    if layout is None:
        known = ", ".join(FORMATS)
        raise InvalidArgument(f"no decoder for {format!r}; there are {known}", subject="format")
    arguments.refuse_masked("blocks", blocks)
    try:
        raw = blocks if isinstance(blocks, np.ndarray) else np.frombuffer(blocks, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise InvalidArgument(f"blocks are no bytes: {error}", subject="blocks") from None
    if raw.dtype != np.uint8 or raw.ndim == 0:
        raise InvalidArgument("blocks must be an array of bytes (uint8)", subject="blocks")
    row = raw.shape[-1]
    if row % layout.bytes != 0:
        raise InvalidArgument(
            f"{row} bytes are not whole {format} blocks of {layout.bytes} bytes",
            subject="blocks",
            limit=layout.bytes,
        )
    shape = (*raw.shape[:-1], row // layout.bytes * layout.elements)
    if raw.size == 0:
        return np.zeros(shape, np.float32)
    records = np.ascontiguousarray(raw).reshape(-1).view(layout.fields)
    with np.errstate(over="ignore", invalid="ignore"):
        return layout.decode(records).reshape(shape)
