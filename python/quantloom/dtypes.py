"""Names of element types."""

from __future__ import annotations

from typing import Any

import numpy as np

from quantloom import arguments
from quantloom.errors import InvalidArgument

_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "f32": "float32"}


def dtype_name(dtype: Any) -> str:
    """The library's name of `dtype`: a name, a NumPy type, or a format name such as "F16".

    Raises:
        InvalidArgument: it is none of these, or not in the machine's byte order.
    """
    if isinstance(dtype, str):
        return _NAMES.get(dtype) or arguments.text("dtype", dtype)
    try:
        known = None if dtype is None else np.dtype(dtype)
    except TypeError:
        known = None
    if known is None or not known.isnative:
        raise InvalidArgument(
            f"{dtype!r} is not a dtype in the machine's byte order", subject="dtype"
        )
    return str(known.name)
