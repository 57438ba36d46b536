"""The table of hostile files: row of the hazards, name, bytes, and what the error must say."""

from __future__ import annotations

import struct
from typing import NamedTuple

from builder import (
    ARRAY,
    REMOVED_TYPES,
    STRING,
    Builder,
    array,
    small_file,
    string,
    tensor_record,
)

U64 = 2**64 - 1
HEADER = 24  # bytes before the first record


class Case(NamedTuple):
    row: int  # of the table of hazards
    name: str
    data: bytes
    message: str
    subject: str | None
    offset: int | None = None
    limit: int | None = None


def raw_key(value_type: int, payload: bytes, key: str | bytes = "k") -> bytes:
    return Builder().raw_key(string(key) + struct.pack("<I", value_type) + payload).build()


def one_tensor(
    dimensions: tuple[int, ...],
    type_id: int = 0,
    offset: int = 0,
    name: str | bytes = "t",
    count: int | None = None,
    data: bytes = b"",
) -> bytes:
    record = tensor_record(name, dimensions, type_id, offset, count)
    return Builder().raw_tensor(record, data).build()


def alignment(kind: str, value: object) -> bytes:
    return Builder().key("general.alignment", kind, value).tensor("t", "F32", (8,)).build()


# The header of a raw_key file is 24 bytes, its key 8 + 1, its type 4: the value begins at 37.
VALUE = HEADER + 9 + 4
# In a one_tensor file: name 8 + 1, then the number of dimensions.
DIMENSIONS = HEADER + 9

CASES = [
    Case(1, "only the magic", b"GGUF", "the file ends inside the version", "version", 4, 0),
    Case(1, "empty file", b"", "the file ends inside the magic", "magic", 0, 0),
    Case(2, "bad magic", b"FUGG" + bytes(28), "starts with 'FUGG' instead of 'GGUF'", "magic", 0),
    Case(2, "Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\n", "LFS", "magic", 0),
    Case(2, "GGML file", b"tjgg" + bytes(28), "before GGUF", "magic", 0),
    Case(2, "ZIP archive", b"PK\x03\x04" + bytes(28), "ZIP archive", "magic", 0),
    Case(2, "version 0", Builder(version=0).build(), "version 0 does not exist", "version", 4, 3),
    Case(2, "version 1", Builder(version=1).build(), "version 1 is obsolete", "version", 4, 3),
    Case(2, "version 4", Builder(version=4).build(), "version 4 is newer than 3", "version", 4, 3),
    Case(2, "version 2^32-1", Builder(version=2**32 - 1).build(), "is newer than", "version", 4, 3),
    Case(
        2,
        "big-endian",
        b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "a big-endian GGUF file (version 3 with its bytes swapped)",
        "version",
        4,
        3,
    ),
    Case(
        3,
        "2^64-1 tensors",
        Builder(tensor_count=U64).build(),
        "tensor count is",
        "tensor count",
        8,
        0,
    ),
    Case(
        3,
        "2^63 tensors",
        small_file(tensor_count=2**63).build(),
        "tensor count is 9223372036854775808",
        "tensor count",
        8,
    ),
    Case(
        3,
        "2^64-1 keys",
        Builder(key_count=U64).build(),
        "metadata key count is 18446744073709551615",
        "metadata key count",
        16,
        0,
    ),
    Case(3, "one key too many", small_file(key_count=37).build(), "tensor", None),
    Case(
        3,
        "more keys than the cap",
        Builder(key_count=2**20 + 1).build() + bytes(14 * 2**20 + 64),
        "above the cap of 1048576",
        "metadata key count",
        16,
        2**20,
    ),
    Case(
        4,
        "key of 2^64-1 bytes",
        Builder().raw_key(string("key", U64)).build().ljust(64, b"\0"),
        "the metadata key is 18446744073709551615 bytes long",
        "metadata key",
        HEADER,
    ),
    Case(
        4,
        "string of 2^64-1 bytes",
        raw_key(STRING, string("text", U64)),
        "the value of 'k' is 18446744073709551615 bytes long",
        "k",
        VALUE,
    ),
    Case(
        4,
        "string one byte past the end",
        Builder(alignment=1)
        .raw_key(string("k") + struct.pack("<I", STRING) + string("ab", 3))
        .build(),
        "is 3 bytes long",
        "k",
        None,
        2,
    ),
    Case(
        4,
        "string above the cap",
        raw_key(STRING, string(bytes(2**24 + 1))),
        "above the cap of 16777216",
        "k",
        VALUE,
        2**24,
    ),
    Case(
        4,
        "key above its cap",
        Builder().key("k" * 65536, "uint8", 1).build(),
        "above the cap of 65535",
        "metadata key",
        HEADER,
        65535,
    ),
    Case(
        4,
        "string in an array past the end",
        raw_key(ARRAY, struct.pack("<IQ", STRING, 1) + string("abc", U64)),
        "the string in the array of 'k' is 18446744073709551615 bytes long",
        "k",
        VALUE + 12,
    ),
    *(
        Case(
            5,
            f"array of {count} {element}",
            raw_key(ARRAY, array(element, [0] * 4, count)),
            f"is an array of {count} elements",
            "k",
            VALUE + 4,
        )
        for element in ("uint16", "uint32", "uint64", "float64")
        for count in (U64, 2**62 + 2, 2**61 + 1)
    ),
    Case(
        5,
        "array of 10^9 strings",
        raw_key(ARRAY, array("string", ["a"] * 4, 10**9)),
        "is an array of 1000000000 elements",
        "k",
        VALUE + 4,
        5,
    ),
    Case(
        5,
        "array above the cap",
        raw_key(ARRAY, struct.pack("<IQ", 0, 2**26 + 1) + bytes(2**26 + 1)),
        "above the cap of 67108864",
        "k",
        VALUE + 4,
        2**26,
    ),
    Case(
        6,
        "array of arrays",
        raw_key(ARRAY, struct.pack("<IQ", ARRAY, 1) + array("uint8", [1])),
        "is an array of arrays",
        "k",
        VALUE,
    ),
    Case(7, "value type 13", raw_key(13, bytes(8)), "unknown value type 13", "k", VALUE - 4, 12),
    Case(
        7,
        "element type 13",
        raw_key(ARRAY, struct.pack("<IQ", 13, 1) + bytes(8)),
        "unknown element type 13",
        "k",
        VALUE,
        12,
    ),
    Case(7, "empty key", raw_key(0, b"\1", ""), "an empty metadata key", "metadata key", HEADER),
    Case(7, "key with NUL", raw_key(0, b"\1", "a\0b"), r"'a\x00b' at byte 24 has a NUL", r"a\x00b"),
    Case(7, "key not UTF-8", raw_key(0, b"\1", b"a\xff"), "is not UTF-8", "a\\xff", HEADER),
    Case(
        7,
        "duplicate key",
        Builder().key("a", "uint8", 1).key("b", "uint8", 1).key("a", "uint8", 2).build(),
        "metadata key 'a' occurs again",
        "a",
        HEADER + 2 * 14,
    ),
    *(
        Case(
            8,
            f"alignment {value}",
            alignment("uint32", value),
            f"is {value}, wanted a power of two",
            "general.alignment",
            HEADER,
            2**20,
        )
        for value in (0, 3, 33, 2**30, 2**21, 2**32 - 1)
    ),
    *(
        Case(
            8,
            f"alignment of type {kind}",
            alignment(kind, value),
            f"is of type {kind.split(':')[0]}, wanted uint32",
            "general.alignment",
            HEADER,
        )
        for kind, value in (
            ("uint64", 32),
            ("int32", 32),
            ("float32", 32.0),
            ("string", "32"),
            ("array:uint32", [32]),
        )
    ),
    Case(
        9,
        "tensor name of 64 bytes",
        one_tensor((8,), name="n" * 64, data=bytes(32)),
        "the tensor name is 64 bytes long",
        "tensor name",
        HEADER,
        63,
    ),
    Case(
        9,
        "tensor name of 2^64-1 bytes",
        Builder().raw_tensor(string("t", U64) + bytes(40)).build(),
        "the tensor name is 18446744073709551615 bytes long",
        "tensor name",
        HEADER,
        63,
    ),
    Case(9, "empty tensor name", one_tensor((8,), name="", data=bytes(64)), "empty", "tensor name"),
    Case(9, "tensor name with NUL", one_tensor((8,), name="a\0", data=bytes(32)), "NUL", r"a\x00"),
    Case(
        9,
        "tensor name not UTF-8",
        one_tensor((8,), name=b"\xc0\x80", data=bytes(32)),
        "UTF-8",
        None,
    ),
    Case(
        9,
        "duplicate tensor",
        Builder().tensor("t", "F32", (8,)).tensor("t", "F16", (16,)).build(),
        "tensor 't' occurs again at byte 57",
        "t",
        HEADER + 33,
    ),
    *(
        Case(
            10,
            f"{count} dimensions",
            one_tensor((8,) * min(count, 6), count=count, data=bytes(32)),
            f"has {count} dimensions at byte {DIMENSIONS}, wanted 1 to 4",
            "t",
            DIMENSIONS,
            4,
        )
        for count in (0, 5, 2**32 - 1)
    ),
    *(
        Case(
            11,
            f"dimension {dimension}",
            one_tensor((8, dimension), data=bytes(32)),
            f"has dimension {dimension} at byte {DIMENSIONS + 12}, wanted at least 1",
            "t",
            DIMENSIONS + 12,
            1,
        )
        for dimension in (0, -1, -(2**63))
    ),
    *(
        Case(
            11,
            f"product of {dimensions} overflows",
            one_tensor(dimensions, type_id),
            "the product of its dimensions is above 9223372036854775807",
            "t",
            DIMENSIONS + 4 + 8 * (len(dimensions) - 1),
            2**63 - 1,
        )
        for type_id in (0, 8)
        for dimensions in ((2**32, 2**32), (2**62, 2), (2**20, 2**20, 2**20, 2**20))
    ),
    Case(
        12,
        "elements x size overflows",
        one_tensor((2**62,)),
        "its size in bytes wraps",
        "t",
        DIMENSIONS + 12,
    ),
    *(
        Case(
            13,
            f"removed type {type_id}",
            one_tensor((256,), type_id),
            "was removed from the format",
            "t",
            DIMENSIONS + 12,
        )
        for type_id in sorted(REMOVED_TYPES)
    ),
    *(
        Case(
            13,
            f"unknown type {type_id}",
            one_tensor((256,), type_id),
            f"is of type {type_id}, which the format does not define",
            "t",
            DIMENSIONS + 12,
        )
        for type_id in (1000, 2**31, 2**32 - 1)
    ),
    *(
        Case(
            13,
            f"row of {row} with blocks of {block}",
            one_tensor((row, 64), type_id, data=bytes(8192)),
            f"with rows of {row} elements, not a multiple of its block of {block}",
            "t",
            DIMENSIONS + 20,
            block,
        )
        for row, type_id, block in ((33, 2, 32), (1, 8, 32), (128, 12, 256), (32, 40, 64))
    ),
    Case(
        14,
        "padding wraps",
        Builder()
        .raw_tensor(tensor_record("a", (2**62 - 8,), 1, 0))
        .raw_tensor(tensor_record("b", (2**62 - 8,), 1, 2**63))
        .build(),
        "the size of the data wraps",
        "b",
        HEADER + 33,
    ),
    Case(
        14,
        "data up to 2^64 in all",
        Builder()
        .raw_tensor(tensor_record("a", (2**63 - 32,), 24, 0))
        .raw_tensor(tensor_record("b", (2**63 - 32,), 24, 2**63 - 32), bytes(32))
        .build(),
        "needs 9223372036854775776 bytes of data",
        "a",
        96,
        128,
    ),
    Case(
        14,
        "sum of sizes wraps",
        Builder()
        .raw_tensor(tensor_record("a", (2**63 - 32,), 24, 0))
        .raw_tensor(tensor_record("b", (2**63 - 32,), 24, 2**63 - 32))
        .raw_tensor(tensor_record("c", (65,), 24, 2**64 - 64))
        .build(),
        "the size of the data wraps",
        "c",
    ),
    Case(
        15,
        "offset 2^64-1",
        one_tensor((8,), offset=U64, data=bytes(32)),
        "has its data at 18446744073709551615",
        "t",
        DIMENSIONS + 16,
        0,
    ),
    Case(
        15,
        "tensors that overlap",
        Builder().tensor("a", "F32", (8,)).tensor("b", "F32", (8,), offset=0).build(),
        "tensor 'b' has its data at 0",
        "b",
        HEADER + 33 + 25,
        32,
    ),
    Case(
        15,
        "a gap between tensors",
        Builder().tensor("a", "F32", (8,)).tensor("b", "F32", (8,), offset=64).build(),
        "it must be at 32",
        "b",
        HEADER + 33 + 25,
        32,
    ),
    Case(
        15,
        "offset off the alignment",
        Builder().tensor("a", "F32", (9,)).tensor("b", "F32", (8,), offset=36).build(),
        "padded to 32 bytes, it must be at 64",
        "b",
        HEADER + 33 + 25,
        64,
    ),
    Case(
        16,
        "data one byte short",
        small_file().build()[:-1],
        "tensor 'blk.0.ffn_up.weight' needs 72 bytes of data",
        "blk.0.ffn_up.weight",
        None,
        len(small_file().build()) - 1,
    ),
    Case(
        16,
        "a model without its data",
        small_file().header(),
        "tensor 'token_embd.weight' needs 48 bytes of data",
        "token_embd.weight",
        len(small_file().header()),
        len(small_file().header()),
    ),
    Case(
        16,
        "an enormous tensor in a small file",
        one_tensor((2**40, 4), 0, data=bytes(32)),
        "needs 17592186044416 bytes of data",
        "t",
        96,
        128,
    ),
]
