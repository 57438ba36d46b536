"""NumPy's arrays and bytes taken as tensors, tensors handed to NumPy and to libraries of CUDA.

What DLPack hands over is in `dlpack`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quantloom import _quantloom, arguments
from quantloom.dtypes import dtype_name
from quantloom.errors import InvalidArgument, Unsupported
from quantloom.formats import TensorType

_MOST_DIMENSIONS = 64  # of a NumPy array; it would take a buffer of more for one object
_BUFFER_CODES = {"F32": "f", "F16": "e", "BF16": "H"}  # of their numbers, as `struct` has them


def array_taken(array: npt.NDArray[Any], dtype: Any) -> Any:
    """A C++ tensor on an array's memory; arguments and errors as of `Tensor.from_numpy`."""
    if not isinstance(array, np.ndarray):
        raise InvalidArgument(
            f"array must be a numpy.ndarray, not {type(array).__name__}; Tensor() takes others",
            subject="array",
        )
    arguments.refuse_masked("array", array)
    if array.dtype.kind in "mM":
        raise InvalidArgument(f"no tensor has the type {array.dtype}", subject="dtype")
    name = array.dtype.name if dtype is None else dtype_name(dtype)
    if dtype is not None and name == "bfloat16" and array.dtype == np.uint16:
        return _quantloom.Tensor.from_buffer(array, name)
    if name != array.dtype.name or not array.dtype.isnative:
        raise InvalidArgument(
            f"an array of {array.dtype} cannot be viewed as {name}", subject="dtype"
        )
    if array.dtype.name == "bfloat16":
        array = array.view(np.uint16)
    return _quantloom.Tensor.from_buffer(array, name)


def blocks_taken(blocks: Any, kind: TensorType, dimensions: list[int]) -> Any:
    """A C++ tensor of blocks on the memory of bytes or a buffer; errors as of `Tensor.from_blocks`.

    Args:
        dimensions: in weights.
    """
    arguments.refuse_masked("blocks", blocks)
    try:
        with memoryview(blocks) as view:
            code = view.format.lstrip("@=<|")
    except (TypeError, ValueError, BufferError):
        raise InvalidArgument(
            f"blocks must be bytes, a buffer or a uint8 Tensor, not {type(blocks).__name__}",
            subject="blocks",
        ) from None
    if code not in ("B", "b", "c", _BUFFER_CODES.get(kind.name)):
        raise InvalidArgument(
            f"blocks must be bytes, not a buffer of {code!r} (of an array, "
            ".view(np.uint8) is its bytes)",
            subject="blocks",
        )
    return _quantloom.Tensor.from_blocks(blocks, kind.id, dimensions)


def array_given(native: Any) -> npt.NDArray[Any]:
    """A NumPy array of a C++ tensor; types and errors as of `Tensor.numpy`."""
    if len(native.shape) > _MOST_DIMENSIONS:
        raise Unsupported(f"NumPy has no array of {len(native.shape)} dimensions")
    native = native.to("cpu")
    if native.is_blocks:
        native = native.as_bytes()
    elif native.dtype == "bfloat16":
        native = native.dequantize("float32", None)
    elif native.dtype == "float16":
        return np.asarray(native).view(np.float16)
    return np.asarray(native)


def array_as_asked(native: Any, dtype: npt.DTypeLike | None, copy: bool | None) -> npt.NDArray[Any]:
    """A NumPy array of a C++ tensor of numbers on the CPU; arguments as of NumPy's `__array__`.

    Raises:
        ValueError: `copy` is False, and the type cannot be had without one.
    """
    array = array_given(native)
    wanted = array.dtype if dtype is None else np.dtype(dtype)
    if copy is False and (native.dtype == "bfloat16" or array.dtype != wanted):
        raise ValueError("a copy is needed to change the type")
    return np.array(array, dtype=dtype, copy=True) if copy else np.asarray(array, dtype=dtype)


def cuda_interface(native: Any) -> dict[str, Any]:
    """`__cuda_array_interface__` of a C++ tensor of numbers on a GPU."""
    native.mark_shared()
    return {
        "shape": tuple(native.shape),
        "typestr": np.dtype(native.dtype).str,
        "data": (int(native.data) if native.size else 0, bool(native.is_read_only)),
        "version": 3,
        "strides": None if native.is_contiguous else tuple(native.strides),
        "stream": int(native.stream),
    }
