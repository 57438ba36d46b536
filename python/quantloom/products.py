"""`quantloom.matmul`: activations times quantized weights, straight from their blocks."""

from __future__ import annotations

from typing import Any

from quantloom import _quantloom
from quantloom.dtypes import dtype_name
from quantloom.errors import InvalidArgument
from quantloom.tensor import Tensor

__all__ = ["matmul"]

_PRECISIONS = ("exact", "fast")
_TYPES = ("float32", "float16", "bfloat16")


def matmul(
    x: Any, w: Any, precision: str = "exact", *, dtype: Any = None, out: Tensor | None = None
) -> Tensor:
    """`x` times the transpose of `w`, as a layer of a model does: [..., rows of w].

    No dequantized copy of `w` is made, whatever its format and the size of `x`. On a GPU the first
    product with a `w` in blocks packs it: from then on `w` holds planes in place of its blocks, at
    the same bits per weight (`Tensor.is_packed`); rows and `Tensor(w)` that were taken of it before
    keep the blocks alive. Work is ordered on quantloom's stream of that GPU, and its workspace
    (256 MiB at most) comes from the pool and returns to it.

    Args:
        x: a Tensor, a NumPy array or any DLPack array [..., columns] in float32, float16 or
            bfloat16.
        w: a Tensor (or a file's tensor, or an array) [rows, columns] in quantized blocks or one of
            these types, on the same device.
        precision: "exact" carries `x` at 16 bits or more and sums in 32; "fast" may quantize it to
            8. On the CPU it does; on a GPU "fast" runs the exact kernels, once also for the ternary
            weights that "exact" multiplies twice (more than 8 rows, on Hopper).
        dtype: of the result: float32, or float16 or bfloat16 rounded to nearest even from it; by
            default that of `out`, else float32.
        out: a contiguous Tensor [..., rows] of that type on that device to write to.

    Returns:
        A Tensor on the device of `x`; `out` where it was given.

    Raises:
        InvalidArgument: a type, a shape, a device or a precision that does not fit; `subject` is
            the argument.
        OutOfMemory: the device has no room for the planes, the workspace or the result.
        DeviceError: the GPU failed.
    """
    if not isinstance(precision, str) or precision not in _PRECISIONS:
        raise InvalidArgument(
            f"precision {precision!r} is not one of 'exact', 'fast'", subject="precision"
        )
    if out is not None and not isinstance(out, Tensor):
        raise InvalidArgument(
            f"out must be a quantloom.Tensor, not {type(out).__name__}", subject="out"
        )
    if dtype is None:
        dtype = "float32" if out is None else out.dtype
        if dtype not in _TYPES:
            raise InvalidArgument(
                f"out is {dtype}; it must be float32, float16 or bfloat16", subject="out"
            )
    left, right = _tensor("x", x), _tensor("w", w)
    matrix = right._face
    if right.is_quantized and right.device != "cpu" and right.size > 0:
        # What the product refuses is not packed for it.
        fits = left.device == right.device and left.shape[-1:] == right.shape[-1:]
        if right.ndim == 2 and fits and left.dtype in _TYPES:
            matrix = right._let_go_of_blocks()
    target: Any = None if out is None else out._native
    result = _quantloom.multiply(left._native, matrix, precision, dtype_name(dtype), target)
    return Tensor._wrap(result) if out is None else out


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        return Tensor(value)
    except InvalidArgument as error:
        raise InvalidArgument(f"{name}: {error}", subject=name) from None
    except (TypeError, ValueError, BufferError) as error:
        raise InvalidArgument(f"{name} is no array: {error}", subject=name) from None
