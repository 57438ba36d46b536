"""Makes GGUF files in memory, valid and hostile ones, independently of quantloom's own code.

Every record can be given as raw bytes, and every count and offset can be made to lie.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# Value types by name: their number and struct code.
SCALARS = {
    "uint8": (0, "B"),
    "int8": (1, "b"),
    "uint16": (2, "H"),
    "int16": (3, "h"),
    "uint32": (4, "I"),
    "int32": (5, "i"),
    "float32": (6, "f"),
    "bool": (7, "?"),
    "uint64": (10, "Q"),
    "int64": (11, "q"),
    "float64": (12, "d"),
}
STRING, ARRAY = 8, 9

# Tensor types by name: id, elements per block, bytes per block.
TENSOR_TYPES = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q4_1": (3, 32, 20),
    "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24),
    "Q8_0": (8, 32, 34),
    "Q8_1": (9, 32, 36),
    "Q2_K": (10, 256, 84),
    "Q3_K": (11, 256, 110),
    "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210),
    "Q8_K": (15, 256, 292),
    "IQ2_XXS": (16, 256, 66),
    "IQ2_XS": (17, 256, 74),
    "IQ3_XXS": (18, 256, 98),
    "IQ1_S": (19, 256, 50),
    "IQ4_NL": (20, 32, 18),
    "IQ3_S": (21, 256, 110),
    "IQ2_S": (22, 256, 82),
    "IQ4_XS": (23, 256, 136),
    "I8": (24, 1, 1),
    "I16": (25, 1, 2),
    "I32": (26, 1, 4),
    "I64": (27, 1, 8),
    "F64": (28, 1, 8),
    "IQ1_M": (29, 256, 56),
    "BF16": (30, 1, 2),
    "TQ1_0": (34, 256, 54),
    "TQ2_0": (35, 256, 66),
    "MXFP4": (39, 32, 17),
    "NVFP4": (40, 64, 36),
    "Q1_0": (41, 128, 18),
}
REMOVED_TYPES = {4, 5, 31, 32, 33, 36, 37, 38}


def string(text: str | bytes, length: int | None = None) -> bytes:
    """A string record; `length` replaces its true length."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data) if length is None else length) + data


def array(element: str, values: Sequence[Any], count: int | None = None) -> bytes:
    """An array's value: element type, count, elements; `count` replaces the true one."""
    number = STRING if element == "string" else SCALARS[element][0]
    head = struct.pack("<IQ", number, len(values) if count is None else count)
    if element == "string":
        return head + b"".join(string(value) for value in values)
    return head + struct.pack(f"<{len(values)}{SCALARS[element][1]}", *values)


def key_value(key: str | bytes, kind: str, value: Any) -> bytes:
    """A metadata record. `kind`: a scalar's name, "string", or "array:" and the element's name."""
    if kind == "string":
        return string(key) + struct.pack("<I", STRING) + string(value)
    if kind.startswith("array:"):
        return string(key) + struct.pack("<I", ARRAY) + array(kind[6:], value)
    number, code = SCALARS[kind]
    return string(key) + struct.pack("<I", number) + struct.pack("<" + code, value)


def tensor_record(
    name: str | bytes,
    dimensions: Sequence[int],
    type_id: int,
    offset: int,
    count: int | None = None,
) -> bytes:
    """An entry of the tensor table; `count` replaces the number of dimensions."""
    number = len(dimensions) if count is None else count
    shape = b"".join(struct.pack("<q" if d < 0 else "<Q", d) for d in dimensions)
    return string(name) + struct.pack("<I", number) + shape + struct.pack("<IQ", type_id, offset)


def data_size(type_name: str, dimensions: Sequence[int]) -> int:
    """Bytes of a tensor's blocks."""
    _, elements, size = TENSOR_TYPES[type_name]
    product = 1
    for dimension in dimensions:
        product *= dimension
    assert dimensions[0] % elements == 0
    return product // elements * size


@dataclass
class Builder:
    """Collects records; `build()` gives the file.

    Attributes:
        tensor_count, key_count: replace the true counts in the header.
        alignment: of tensor data; written as general.alignment where it is not 32.
    """

    version: int = 3
    magic: bytes = b"GGUF"
    alignment: int = 32
    tensor_count: int | None = None
    key_count: int | None = None
    records: list[bytes] = field(default_factory=list)
    tensors: list[bytes] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    _size: int = 0

    def __post_init__(self) -> None:
        if self.alignment != 32:
            self.key("general.alignment", "uint32", self.alignment)

    def key(self, key: str | bytes, kind: str, value: Any) -> Builder:
        self.records.append(key_value(key, kind, value))
        return self

    def raw_key(self, record: bytes) -> Builder:
        self.records.append(record)
        return self

    def _pad(self, size: int) -> int:
        return -(-size // self.alignment) * self.alignment

    def tensor(
        self,
        name: str | bytes,
        type_name: str,
        dimensions: Sequence[int],
        data: bytes | None = None,
        offset: int | None = None,
    ) -> Builder:
        """A tensor with its data (zeros unless given); dimensions[0] is the length of a row."""
        size = data_size(type_name, dimensions)
        blocks = bytes(size) if data is None else data
        assert len(blocks) == size
        place = self._size if offset is None else offset
        self.tensors.append(tensor_record(name, dimensions, TENSOR_TYPES[type_name][0], place))
        self.data.append(blocks.ljust(self._pad(size), b"\0"))
        self._size += self._pad(size)
        return self

    def raw_tensor(self, record: bytes, data: bytes = b"") -> Builder:
        self.tensors.append(record)
        self.data.append(data)
        return self

    def header(self) -> bytes:
        """Everything before the data, padded to the alignment."""
        tensors = len(self.tensors) if self.tensor_count is None else self.tensor_count
        keys = len(self.records) if self.key_count is None else self.key_count
        head = self.magic + struct.pack("<IQQ", self.version, tensors, keys)
        head += b"".join(self.records) + b"".join(self.tensors)
        return head.ljust(self._pad(len(head)), b"\0")

    def build(self) -> bytes:
        return self.header() + b"".join(self.data)


def small_file(**changes: Any) -> Builder:
    """A valid file with every kind of value and two tensors."""
    builder = Builder(**changes)
    builder.key("general.architecture", "string", "llama")
    for index, kind in enumerate(SCALARS):
        builder.key(f"scalar.{kind}", kind, index % 2)
        builder.key(f"array.{kind}", f"array:{kind}", [1, 0, 1])
        builder.key(f"empty.{kind}", f"array:{kind}", [])
    builder.key("array.string", "array:string", ["alpha", "", "\u03b2"])
    builder.key("array.empty", "array:string", [])
    builder.tensor("token_embd.weight", "F32", (4, 3), bytes(range(48)))
    builder.tensor("blk.0.ffn_up.weight", "Q4_0", (64, 2))
    return builder
