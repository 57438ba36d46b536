"""Metadata values in the bytes that a GGUF file holds of them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantloom import arguments
from quantloom.errors import InvalidArgument

__all__ = ["ARRAY", "VALUE_TYPES", "array", "inferred", "scalar", "string"]

LONGEST_STRING = 16 << 20  # bytes, and
MOST_ELEMENTS = 64 << 20  # of an array: what `quantloom.open` takes

# value type -> its number in the file and its struct code; the strings and arrays have none
VALUE_TYPES: dict[str, tuple[int, str]] = {
    "uint8": (0, "B"),
    "int8": (1, "b"),
    "uint16": (2, "H"),
    "int16": (3, "h"),
    "uint32": (4, "I"),
    "int32": (5, "i"),
    "float32": (6, "f"),
    "bool": (7, "?"),
    "string": (8, ""),
    "uint64": (10, "Q"),
    "int64": (11, "q"),
    "float64": (12, "d"),
}
ARRAY = 9
_INTEGERS = ("uint32", "int32", "int64")  # of an int without a kind, the first that has room


def string(text: str | bytes) -> bytes:
    """A string as its length and its bytes."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def _misfit(key: str, value: Any, kind: str) -> InvalidArgument:
    try:
        shown = repr(value)[:80]
    except ValueError:  # more digits than Python prints
        shown = f"an integer of {value.bit_length()} bits"
    number = VALUE_TYPES[kind][1]
    if number in "fd":
        most = float(np.finfo(kind).max)
        allowed = f"-{most:g} to {most:g}, and integers that it has exactly"
    elif number == "?":
        allowed = "False and True"
    else:
        allowed = f"integers from {np.iinfo(kind).min} to {np.iinfo(kind).max}"
    return InvalidArgument(f"{key}: {shown} does not fit {kind}: {allowed}", subject=key)


def scalar(key: str, value: Any, kind: str) -> bytes:
    """One value as `kind`.

    Raises:
        InvalidArgument: it does not fit; `subject` is `key`.
    """
    if kind == "string":
        if not isinstance(value, (str, bytes)):
            raise InvalidArgument(f"{key}: {value!r} is not a string", subject=key)
        raw = value if isinstance(value, bytes) else arguments.text(key, value).encode()
        if len(raw) > LONGEST_STRING:
            raise InvalidArgument(
                f"{key}: a string of {len(raw)} bytes, above {LONGEST_STRING}",
                subject=key,
                limit=LONGEST_STRING,
            )
        return string(raw)
    code = "<" + VALUE_TYPES[kind][1]
    try:
        raw = struct.pack(code, value)
    except (struct.error, OverflowError, TypeError, ValueError):
        raise _misfit(key, value, kind) from None
    # struct rounds an integer on its way to a float, and takes anything's truth.
    exact = kind == "bool" or isinstance(value, (int, np.integer))
    if exact and not struct.unpack(code, raw)[0] == value:
        raise _misfit(key, value, kind)
    return raw


def inferred(key: str, value: Any) -> str:
    """The type of a value that was given none.

    Raises:
        InvalidArgument: GGUF has none for it; `subject` is `key`.
    """
    if isinstance(value, (bool, np.bool_)):
        return "bool"
    if isinstance(value, (str, bytes)):
        return "string"
    if isinstance(value, (int, np.integer)):
        return "uint32" if 0 <= value < 2**32 else "int32" if -(2**31) <= value < 0 else "int64"
    if isinstance(value, (float, np.floating)):
        return "float32"
    raise InvalidArgument(f"{key}: a {type(value).__name__} has no GGUF type", subject=key)


def _converted(key: str, values: NDArray[Any], kind: str) -> NDArray[Any]:
    """`values` as `kind`; only floats on their way to a float may be rounded."""
    with np.errstate(all="ignore"):  # what does not fit is refused below
        converted = values.astype(np.dtype(kind))
    if values.dtype.kind == "f" and converted.dtype.kind == "f":
        wrong = np.isfinite(values) & ~np.isfinite(converted)
    elif values.dtype.kind == "f":
        low, high = (0, 1) if kind == "bool" else (np.iinfo(kind).min, np.iinfo(kind).max)
        # high + 1 is a power of two, which a float has exactly; high itself may not be one.
        inside = (values >= float(low)) & (values < float(int(high) + 1))
        wrong = ~inside | (values != np.trunc(values))
    else:
        pairs = zip(converted.tolist(), values.tolist(), strict=True)
        wrong = np.array([new != old for new, old in pairs], np.bool_)
    if wrong.any():
        raise _misfit(key, values[wrong].tolist()[0], kind)
    return converted


def array(key: str, values: Sequence[Any] | NDArray[Any], kind: str | None) -> bytes:
    """The elements' type, their number and the elements; without `kind` their own type.

    Raises:
        InvalidArgument: they have no type in common, or do not fit it; `subject` is `key`.
    """
    arguments.refuse_masked(key, values)
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise InvalidArgument(f"{key}: an array of {values.ndim} dimensions", subject=key)
    if len(values) > MOST_ELEMENTS:
        raise InvalidArgument(
            f"{key}: an array of {len(values)} elements, above {MOST_ELEMENTS}",
            subject=key,
            limit=MOST_ELEMENTS,
        )
    if isinstance(values, np.ndarray) and values.dtype.kind in "USO":
        values = values.tolist()
    if isinstance(values, np.ndarray):
        kind = kind or values.dtype.name
        if kind in VALUE_TYPES and kind != "string" and values.dtype.kind in "biuf":
            same = values.dtype == np.dtype(kind)
            raw = (values if same else _converted(key, values, kind)).tobytes()
            return struct.pack("<IQ", VALUE_TYPES[kind][0], len(values)) + raw
        values = values.tolist()
    if kind is None:
        kinds = {inferred(key, value) for value in values} or {"string"}
        if len(kinds) > 1 and kinds <= set(_INTEGERS):
            fit = (np.iinfo(kind) for kind in _INTEGERS)
            low, high = min(values), max(values)
            kinds = {next((str(i.dtype) for i in fit if i.min <= low and high <= i.max), "int64")}
        if len(kinds) != 1:
            raise InvalidArgument(f"{key}: an array of {' and '.join(sorted(kinds))}", subject=key)
        kind = kinds.pop()
    if kind not in VALUE_TYPES:
        raise InvalidArgument(f"{key}: GGUF has no arrays of {kind}", subject=key)
    parts = [struct.pack("<IQ", VALUE_TYPES[kind][0], len(values))]
    parts += [scalar(key, value, kind) for value in values]
    return b"".join(parts)
