"""The table of GGUF tensor types, as the C++ library's list of formats generates it."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

from quantloom import _quantloom, arguments
from quantloom.errors import InvalidArgument

__all__ = ["FORMATS", "TYPES", "TensorType", "served_type", "tensor_type"]


@dataclass(frozen=True)
class TensorType:
    """A GGUF tensor type.

    Attributes:
        name: such as "Q4_K".
        id: the number that stands for it in a file.
        elements: weights per block; a row of a tensor is a whole number of blocks.
        bytes: bytes per block; 0 for a removed type.
        state: "served" (decoded and computed with), "known" (listed only) or "removed".
        encodable: whether `quantloom.quantize` can write it.
    """

    name: str
    id: int
    elements: int
    bytes: int
    state: str
    encodable: bool

    @property
    def served(self) -> bool:
        """Whether quantloom decodes it and computes with it."""
        return self.state == "served"

    @property
    def bits_per_weight(self) -> float:
        """Bits that one weight takes, its share of the scales included."""
        return 8 * self.bytes / self.elements

    def row_bytes(self, elements: int) -> int:
        """Bytes of a row of `elements` weights.

        Raises:
            InvalidArgument: the row is not whole blocks, or `elements` no integer from 0.
        """
        elements = arguments.integer("elements", elements, 0)
        if elements % self.elements != 0:
            raise InvalidArgument(
                f"a row of {elements} weights is not whole {self.name} blocks of {self.elements}",
                subject="elements",
                limit=self.elements,
            )
        return elements // self.elements * self.bytes


TYPES: Mapping[str, TensorType] = MappingProxyType(
    {
        name: TensorType(name, number, elements, size, state, encodable)
        for number, name, elements, size, state, encodable in _quantloom.type_table()
    }
)
"""Every type that the GGUF format defines or once defined, by name."""

FORMATS: Mapping[str, TensorType] = MappingProxyType(
    {name: entry for name, entry in TYPES.items() if entry.served}
)
"""The types that quantloom decodes and computes with, by name."""

_BY_ID = {entry.id: entry for entry in TYPES.values()}


def served_type(key: str | int) -> TensorType:
    """The entry of a type that quantloom decodes and computes with.

    Raises:
        InvalidArgument: there is no such type, or no decoder for it.
    """
    entry = tensor_type(key)
    if not entry.served:
        raise InvalidArgument(
            f"there is no decoder for {entry.name}; there are {', '.join(FORMATS)}",
            subject="format",
        )
    return entry


def tensor_type(key: str | int) -> TensorType:
    """The entry of a type by its name (in any case) or id.

    Raises:
        InvalidArgument: there is no such type.
    """
    entry = None
    if isinstance(key, str):
        entry = TYPES.get(key.upper())
    elif not isinstance(key, bool):
        with suppress(TypeError):  # of an array too, whose type has __index__
            entry = _BY_ID.get(operator.index(key))
    if entry is None:
        raise InvalidArgument(
            f"{key!r} is no GGUF tensor type; there are {', '.join(FORMATS)}", subject="format"
        )
    return entry
