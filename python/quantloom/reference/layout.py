"""What every decoder is made of: the bytes of a block, and the arrays that NumPy sees in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Blocks = NDArray[np.void]

HALF = "<f2"
BYTE = "u1"
SIGNED_BYTE = "i1"
SHORT = "<u2"
WORD = "<u4"


@dataclass(frozen=True)
class Layout:
    """A block format: `fields` as NumPy sees them, and `decode` from n blocks to [n, elements]."""

    elements: int
    fields: np.dtype[np.void]
    decode: Callable[[Blocks], Floats]

    @property
    def bytes(self) -> int:
        """Bytes per block."""
        return self.fields.itemsize


def fields(**named: Any) -> np.dtype[np.void]:
    """A packed record of fields in file order, each a type or (type, length)."""
    return np.dtype([(name, *(t if isinstance(t, tuple) else (t,))) for name, t in named.items()])


def to_float(values: NDArray[Any]) -> Floats:
    """float32 of the same values; exact for halves and for every integer that occurs in a block."""
    return values.astype(np.float32)


def bits(values: NDArray[Any], count: int, per: int) -> NDArray[np.int64]:
    """The `per` fields of `count` bits in each value, lowest first, along a new last axis."""
    shifts = np.arange(per, dtype=np.int64) * count
    return (values[..., None].astype(np.int64) >> shifts) & ((1 << count) - 1)


def planes(values: NDArray[Any], count: int, per: int) -> NDArray[np.int64]:
    """As `bits`, but along a new axis before the last: all lowest fields first."""
    return np.moveaxis(bits(values, count, per), -1, -2)


def flat(values: NDArray[Any], elements: int) -> NDArray[Any]:
    """[n, ...] as [n, elements]."""
    return values.reshape(len(values), elements)


def scaled(scale: Floats, q: NDArray[Any], offset: Floats | None = None) -> Floats:
    """scale * q (+ offset) where scale and offset are per group and q is [n, elements].

    scale and offset are [n, groups]; each product and sum is rounded to float32 once.
    """
    groups = to_float(q).reshape(*scale.shape, -1)
    values = scale[..., None] * groups
    if offset is not None:
        values = values + offset[..., None]
    return values.reshape(q.shape)
