"""Writes GGUF files, version 3. A file appears under its name only when it is complete."""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from quantloom.errors import FileError, InvalidArgument
from quantloom.formats import TensorType, tensor_type

__all__ = ["GGUFWriter"]

VERSION = 3
LONGEST_NAME = 63  # bytes; readers keep tensor names in 64 with a NUL
LONGEST_KEY = 65535  # bytes, the format's own limit
MOST_DIMENSIONS = 4

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

Chunk = bytes | memoryview | NDArray[Any]


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    type: TensorType
    bytes: int
    chunks: Callable[[], Iterable[Chunk]]


def _string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def _scalar(key: str, value: Any, kind: str) -> bytes:
    if kind == "string":
        if not isinstance(value, (str, bytes)):
            raise InvalidArgument(f"{key}: {value!r} is not a string", subject=key)
        return _string(value)
    try:
        return struct.pack("<" + VALUE_TYPES[kind][1], value)
    except (struct.error, OverflowError) as error:
        raise InvalidArgument(f"{key}: {value!r} does not fit {kind}", subject=key) from error


def _inferred(key: str, value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "bool"
    if isinstance(value, (str, bytes)):
        return "string"
    if isinstance(value, (int, np.integer)):
        return "uint32" if 0 <= value < 2**32 else "int32" if -(2**31) <= value < 0 else "int64"
    if isinstance(value, (float, np.floating)):
        return "float32"
    raise InvalidArgument(f"{key}: a {type(value).__name__} has no GGUF type", subject=key)


def _array(key: str, values: Sequence[Any] | NDArray[Any], kind: str | None) -> bytes:
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise InvalidArgument(f"{key}: an array of {values.ndim} dimensions", subject=key)
        kind = kind or str(values.dtype)
        if kind in VALUE_TYPES and kind != "string" and values.dtype.kind in "biuf":
            converted = values.astype(np.dtype(kind), copy=False)
            if values.dtype.kind != "f" and not np.array_equal(converted, values):
                raise InvalidArgument(f"{key}: values do not fit {kind}", subject=key)
            raw = np.ascontiguousarray(converted).tobytes()
            return struct.pack("<IQ", VALUE_TYPES[kind][0], len(values)) + raw
        values = values.tolist()
    if kind is None:
        kinds = {_inferred(key, value) for value in values} or {"string"}
        if kinds == {"uint32", "int32"}:
            kinds = {"int32"}
        if len(kinds) != 1:
            raise InvalidArgument(f"{key}: an array of {' and '.join(sorted(kinds))}", subject=key)
        kind = kinds.pop()
    if kind not in VALUE_TYPES:
        raise InvalidArgument(f"{key}: GGUF has no arrays of {kind}", subject=key)
    parts = [struct.pack("<IQ", VALUE_TYPES[kind][0], len(values))]
    parts += [_scalar(key, value, kind) for value in values]
    return b"".join(parts)


def _flat_bytes(chunk: Chunk) -> bytes | memoryview:
    if isinstance(chunk, np.ndarray):
        return np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
    return chunk if isinstance(chunk, bytes) else chunk.cast("B")


class GGUFWriter:
    """Collects metadata and tensors, then writes them.

    Example:
        writer = GGUFWriter()
        writer.add("general.architecture", "llama")
        writer.add_tensor("token_embd.weight", array)
        writer.add_tensor("output.weight", blocks, shape=(512, 256), format="Q4_K")
        writer.write("model.gguf")
    """

    def __init__(self, *, alignment: int = 32) -> None:
        if alignment < 8 or alignment & (alignment - 1) or alignment > 2**20:
            raise InvalidArgument(
                f"alignment {alignment} is not a power of two from 8 to 1048576",
                subject="alignment",
            )
        self._alignment = alignment
        self._metadata: dict[str, bytes] = {}
        self._tensors: dict[str, _Tensor] = {}
        if alignment != 32:
            self.add("general.alignment", alignment, "uint32")

    def add(self, key: str, value: Any, kind: str | None = None) -> None:
        """Adds one metadata value.

        Args:
            key: such as "llama.block_count"; must be new.
            value: bool, int, float, str, bytes (a string that is not UTF-8), or a list or
                one-dimensional array of one of them.
            kind: the value's or the elements' type, such as "uint64". Without it an int becomes
                uint32 (int32 or int64 where it does not fit), a float float32, an array its dtype.

        Raises:
            InvalidArgument: the key is taken, or the value has no GGUF type or does not fit it.
        """
        if not 0 < len(key.encode()) <= LONGEST_KEY:
            raise InvalidArgument(f"a key of {len(key.encode())} bytes", subject=key)
        if key in self._metadata:
            raise InvalidArgument(f"{key} was added before", subject=key)
        if kind is not None and kind not in VALUE_TYPES:
            raise InvalidArgument(
                f"{key}: no value type {kind!r}; there are {', '.join(VALUE_TYPES)}", subject=key
            )
        if isinstance(value, (list, tuple, np.ndarray)):
            self._metadata[key] = struct.pack("<I", ARRAY) + _array(key, value, kind)
            return
        kind = kind or _inferred(key, value)
        self._metadata[key] = struct.pack("<I", VALUE_TYPES[kind][0]) + _scalar(key, value, kind)

    def add_tensor(
        self,
        name: str,
        data: NDArray[Any],
        *,
        shape: Sequence[int] | None = None,
        format: str | None = None,
    ) -> None:
        """Adds a tensor that is in memory.

        Args:
            name: such as "blk.0.attn_q.weight"; must be new.
            data: float32 or float16 values, or with `format` the bytes of its blocks.
            shape: rows before columns; for blocks it is the shape in weights, and needed.
            format: GGUF type name of the blocks in `data`.

        Raises:
            InvalidArgument: the name, shape, format and data do not go together.
        """
        if format is None:
            formats = {"float32": "F32", "float16": "F16", "int32": "I32"}
            format = formats.get(str(data.dtype))
            if format is None:
                raise InvalidArgument(
                    f"{name}: {data.dtype} values need quantloom.quantize first", subject=name
                )
            shape = data.shape if shape is None else shape
        elif shape is None:
            raise InvalidArgument(f"{name}: blocks need the shape in weights", subject=name)
        contiguous = np.ascontiguousarray(data)
        self.add_tensor_chunks(name, shape, format, lambda: [contiguous])
        if contiguous.nbytes != self._tensors[name].bytes:
            expected = self._tensors.pop(name).bytes
            raise InvalidArgument(
                f"{name}: {contiguous.nbytes} bytes, where {tuple(shape or ())} in {format} "
                f"takes {expected}",
                subject=name,
                limit=expected,
            )

    def add_tensor_chunks(
        self,
        name: str,
        shape: Sequence[int],
        format: str,
        chunks: Callable[[], Iterable[Chunk]],
    ) -> None:
        """Adds a tensor whose bytes `chunks()` yields piece by piece while the file is written.

        Raises:
            InvalidArgument: the name is taken or too long, or the shape does not suit the format.
        """
        length = len(name.encode())
        if not 0 < length <= LONGEST_NAME:
            raise InvalidArgument(
                f"tensor name {name!r} has {length} bytes, not 1 to {LONGEST_NAME}",
                subject=name,
                limit=LONGEST_NAME,
            )
        if name in self._tensors:
            raise InvalidArgument(f"tensor {name} was added before", subject=name)
        dimensions = tuple(int(extent) for extent in shape)
        if not 0 < len(dimensions) <= MOST_DIMENSIONS or min(dimensions) < 1:
            raise InvalidArgument(f"{name}: shape {dimensions} is not 1 to 4 sizes", subject=name)
        kind = tensor_type(format)
        if kind.state == "removed":
            raise InvalidArgument(f"{name}: {kind.name} is no longer part of GGUF", subject=name)
        if dimensions[-1] % kind.elements != 0:
            raise InvalidArgument(
                f"{name}: rows of {dimensions[-1]} weights are not whole {kind.name} blocks of "
                f"{kind.elements}",
                subject=name,
                limit=kind.elements,
            )
        rows = 1
        for extent in dimensions[:-1]:
            rows *= extent
        size = rows * kind.row_bytes(dimensions[-1])
        self._tensors[name] = _Tensor(name, dimensions, kind, size, chunks)

    def write(
        self, path: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Writes the file. It replaces one of the same name, at once and only when complete.

        Args:
            path: where to.
            progress: called with the tensor bytes written so far and in all.

        Raises:
            FileError: the file cannot be written.
            InvalidArgument: a tensor's chunks are not as many bytes as its shape says.
        """
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
        try:
            with open(temporary, "xb", buffering=1 << 20) as file:
                self._write(file, progress)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError as error:
            if isinstance(error, FileError):
                raise
            raise FileError(f"cannot write {target}: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _write(self, file: BinaryIO, progress: Callable[[int, int], None] | None) -> None:
        file.write(b"GGUF")
        file.write(struct.pack("<IQQ", VERSION, len(self._tensors), len(self._metadata)))
        for key, value in self._metadata.items():
            file.write(_string(key) + value)
        offset = 0
        for tensor in self._tensors.values():
            file.write(_string(tensor.name))
            file.write(struct.pack("<I", len(tensor.shape)))
            file.write(struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape)))
            file.write(struct.pack("<IQ", tensor.type.id, offset))
            offset += self._padded(tensor.bytes)
        file.write(bytes(self._padded(file.tell()) - file.tell()))
        total = sum(tensor.bytes for tensor in self._tensors.values())
        done = 0
        for tensor in self._tensors.values():
            written = 0
            for chunk in tensor.chunks():
                raw = _flat_bytes(chunk)
                written += len(raw)
                if written > tensor.bytes:
                    break
                file.write(raw)
                if progress is not None:
                    progress(done + written, total)
            if written != tensor.bytes:
                raise InvalidArgument(
                    f"{tensor.name}: {written} bytes came where its shape takes {tensor.bytes}",
                    subject=tensor.name,
                    limit=tensor.bytes,
                )
            done += written
            file.write(bytes(self._padded(written) - written))

    def _padded(self, size: int) -> int:
        return -(-size // self._alignment) * self._alignment
