"""Reads the metadata of a GGUF file into a plain mapping, independently of quantloom's reader."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9


def read_metadata(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    magic, version, _, keys = struct.unpack_from("<4sIQQ", data)
    assert magic == b"GGUF" and version in (2, 3)
    position = 24

    def scalar(code: str) -> Any:
        nonlocal position
        (value,) = struct.unpack_from("<" + code, data, position)
        position += struct.calcsize(code)
        return value

    def string() -> str:
        nonlocal position
        length = scalar("Q")
        position += length
        return data[position - length : position].decode()

    def value(kind: int) -> Any:
        nonlocal position
        if kind == _STRING:
            return string()
        if kind == _ARRAY:
            inner, count = scalar("I"), scalar("Q")
            if inner == _STRING:
                return [string() for _ in range(count)]
            code = _SCALARS[inner]
            position += count * struct.calcsize(code)
            return list(
                struct.unpack_from(
                    f"<{count}{code}", data, position - count * struct.calcsize(code)
                )
            )
        return scalar(_SCALARS[kind])

    metadata = {}
    for _ in range(keys):
        key = string()
        metadata[key] = value(scalar("I"))
    return metadata
