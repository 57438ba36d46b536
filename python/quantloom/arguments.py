"""Arguments on their way to C++: type and width are checked here, the range of numbers there."""

from __future__ import annotations

import errno
import math
import operator
import os
import sys
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantloom.errors import FileError, InvalidArgument

MOST_THREADS = 1024

_INT64 = np.iinfo(np.int64)


def integer(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """`value` as an int of 64 bits, in [low, high] where given.

    Raises:
        InvalidArgument: no integer (a bool is none), or outside; `subject` is `name`.
    """
    low = int(_INT64.min) if low is None else low
    high = int(_INT64.max) if high is None else high
    if isinstance(value, (bool, np.bool_)):
        raise InvalidArgument(f"{name} must be an integer, not a bool", subject=name)
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidArgument(
            f"{name} must be an integer, not {type(value).__name__}", subject=name
        ) from None
    if not low <= number <= high:
        shown = str(number) if number.bit_length() < 256 else f"of {number.bit_length()} bits"
        below = number < low and high == int(_INT64.max)
        outside = f"below {low}" if below else f"outside {low} to {high}"
        raise InvalidArgument(f"{name} is {shown}, {outside}", subject=name, limit=high)
    return number


def real(name: str, value: Any) -> float:
    """`value` as a float; NaN and Inf pass, for the range check in C++ to refuse.

    Raises:
        InvalidArgument: no number; `subject` is `name`.
    """
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise InvalidArgument(f"{name} must be a number, not {value!r}", subject=name)
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        raise InvalidArgument(
            f"{name} must be a number, not {type(value).__name__}", subject=name
        ) from None


def flag(name: str, value: Any) -> bool:
    """`value`, True or False: "no" and "false" are true in Python.

    Raises:
        InvalidArgument: something else; `subject` is `name`.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidArgument(f"{name} must be True or False, not {value!r}", subject=name)
    return bool(value)


def check_progress(value: Any) -> None:
    """Refuses a `progress` that cannot be called; None is no progress.

    Raises:
        InvalidArgument: it is something else; `subject` is "progress".
    """
    if value is not None and not callable(value):
        kind = type(value).__name__
        raise InvalidArgument(f"progress must be callable, not {kind}", subject="progress")


def text(name: str, value: Any) -> str:
    """`value`, a string that UTF-8 can write.

    Raises:
        InvalidArgument: no string, or one with an unpaired surrogate; `subject` is `name`.
    """
    if not isinstance(value, str):
        raise InvalidArgument(f"{name} must be a string, not {type(value).__name__}", subject=name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{name} {value!a} has an unpaired surrogate", subject=name) from None
    return value


def extents(name: str, value: Any) -> list[int]:
    """The lengths of a shape, given as a sequence of integers or as one; not yet their range.

    Raises:
        InvalidArgument: something else than integers of 64 bits; `subject` is `name`.
    """
    try:
        lengths = list(value)
    except TypeError:
        lengths = [value]
    return [integer(name, length) for length in lengths]


def row_index(value: Any) -> int:
    """The index of one row of a tensor, which may be negative; not yet whether there is such a row.

    Raises:
        InvalidArgument: no integer (a bool is none); `subject` is "index".
    """
    try:
        position = None if isinstance(value, bool) else operator.index(value)
    except TypeError:  # of an array too, whose type has __index__
        position = None
    if position is None:
        raise InvalidArgument(
            f"a tensor is indexed by an integer or a slice of its rows, not {value!r}",
            subject="index",
        )
    return position


def row_slice(value: slice, rows: int) -> tuple[int, int, int]:
    """The first row that a slice of `rows` takes, how many, and the step between them.

    Raises:
        InvalidArgument: its parts are no integers, or its step is 0; `subject` is "index".
    """
    try:
        first, stop, step = value.indices(rows)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{value!r}: {error}", subject="index") from None
    count = len(range(first, stop, step))
    # A step past the rows may take more than 64 bits.
    return first if count else 0, count, step if count > 1 else 1


def file_path(name: str, value: Any) -> Path:
    """`value` as the path of a file, which need not exist; "~" becomes the user's folder.

    Raises:
        InvalidArgument: neither a string nor a path; `subject` is `name`.
        FileError: no file can have that name: it is empty, has a NUL or an unpaired surrogate.
    """
    try:
        given = os.fspath(value)
    except TypeError:
        given = b""
    if not isinstance(given, str):
        raise InvalidArgument(
            f"{name} must be a string or a path, not {type(value).__name__}", subject=name
        )
    try:
        encoded = os.fsencode(given)
    except UnicodeEncodeError:
        encoded = b""
    if not encoded or b"\0" in encoded:
        raise FileError(
            f"no file can have the name {given!a}",
            subject=repr(given),
            errno=errno.EINVAL if given else errno.ENOENT,
            filename=given,
        )
    return Path(os.path.expanduser(given))


def refuse_masked(name: str, value: Any) -> None:
    """Refuses a masked array whose mask hides something: nothing behind it keeps a mask.

    Raises:
        InvalidArgument: it hides a value; `subject` is `name`.
    """
    # np.ma imports it, 5 ms in the first call, and a fork() meanwhile would leave its lock held.
    masked_array = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    if masked_array is not None and isinstance(value, masked_array) and np.ma.is_masked(value):
        raise InvalidArgument(
            f"{name} is a masked array that hides values; fill them with .filled() first",
            subject=name,
        )


def array(name: str, value: Any) -> npt.NDArray[Any]:
    """`value` as NumPy takes it.

    Raises:
        InvalidArgument: it is no array, or its mask hides something; `subject` is `name`.
    """
    refuse_masked(name, value)
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{name} is no array: {error}", subject=name) from None


def items(name: str, value: Any) -> list[Any]:
    """The items of `value`.

    Raises:
        InvalidArgument: it has none; `subject` is `name`.
    """
    if not isinstance(value, Iterable):
        raise InvalidArgument(
            f"{name} must be a sequence, not {type(value).__name__}", subject=name
        )
    return list(value)


def token_items(name: str, value: Any) -> list[Any]:
    """The items of a sequence of token ids, each of which is still to be checked.

    Raises:
        InvalidArgument: text or bytes, or what has no items or no order; `subject` is `name`.
    """
    other = isinstance(value, (str, bytes, bytearray, memoryview, Set, Mapping))
    if other or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        raise InvalidArgument(
            f"{name} must be a sequence of token ids, not {type(value).__name__}", subject=name
        )
    return list(value)


def token_ids(name: str, value: Any) -> npt.NDArray[np.int64]:
    """A sequence of token ids as int64 [tokens].

    Raises:
        InvalidArgument: it holds something else than integers of 64 bits, is not flat, or has no
            order, as a set or a mapping.
    """
    refuse_masked(name, value)
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or value.dtype.kind not in "iu":
            raise InvalidArgument(
                f"{name} must be a flat array of integers, not {value.dtype} of shape "
                f"{value.shape}",
                subject=name,
            )
        if value.dtype == np.uint64 and value.size and value.max() > _INT64.max:
            raise InvalidArgument(f"{name} holds {value.max()}, no token id", subject=name)
        return np.ascontiguousarray(value, dtype=np.int64)
    tokens = token_items(name, value)
    if all(type(token) is int for token in tokens):
        try:
            return np.array(tokens, np.int64)
        except OverflowError:  # told below, with its place
            pass
    return np.array([integer(f"{name}[{i}]", token) for i, token in enumerate(tokens)], np.int64)


def logit_bias(value: Any) -> list[tuple[int, float]]:
    """A mapping of token id to bias as a list of pairs.

    Raises:
        InvalidArgument: it is something else.
    """
    if not isinstance(value, Mapping):
        raise InvalidArgument(
            f"logit_bias must be a mapping of token id to bias, not {type(value).__name__}",
            subject="logit_bias",
        )
    return [
        (integer("logit_bias token", token), real("logit_bias", bias))
        for token, bias in value.items()
    ]
