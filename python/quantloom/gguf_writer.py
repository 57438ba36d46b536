"""Writes GGUF files, version 3. A file appears under its name only when it is complete."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from quantloom import arguments
from quantloom.errors import FileError, InvalidArgument
from quantloom.formats import TensorType, tensor_type

__all__ = ["GGUFWriter"]

VERSION = 3
LONGEST_NAME = 63  # bytes; readers keep tensor names in 64 with a NUL
LONGEST_KEY = 65535  # bytes, the format's own limit
LONGEST_STRING = 16 << 20  # bytes, and
MOST_ELEMENTS = 64 << 20  # of an array: what `quantloom.open` takes
MOST_DIMENSIONS = 4
MOST_BYTES = 2**63 - 1  # of a tensor
ALIGNMENT_KEY = "general.alignment"

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


def _scalar(key: str, value: Any, kind: str) -> bytes:
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
        return _string(raw)
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


def _array(key: str, values: Sequence[Any] | NDArray[Any], kind: str | None) -> bytes:
    arguments.refuse_masked(key, values)
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise InvalidArgument(f"{key}: an array of {values.ndim} dimensions", subject=key)
    if len(values) > MOST_ELEMENTS:
        raise InvalidArgument(
            f"{key}: an array of {len(values)} elements, above {MOST_ELEMENTS}",
            subject=key,
            limit=MOST_ELEMENTS,
        )
    if isinstance(values, np.ndarray):
        kind = kind or str(values.dtype)
        if kind in VALUE_TYPES and kind != "string" and values.dtype.kind in "biuf":
            same = values.dtype == np.dtype(kind)
            raw = (values if same else _converted(key, values, kind)).tobytes()
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


def _flat_bytes(name: str, chunk: Chunk) -> bytes | memoryview:
    if isinstance(chunk, np.ndarray):
        return np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
    try:
        return chunk if isinstance(chunk, bytes) else memoryview(chunk).cast("B")
    except TypeError:
        raise InvalidArgument(
            f"{name}: a chunk must be contiguous bytes or an array, not {type(chunk).__name__}",
            subject=name,
        ) from None


def _alignment(name: str, value: Any) -> int:
    alignment = arguments.integer(name, value, 8, 2**20)
    if alignment & (alignment - 1):
        raise InvalidArgument(
            f"{name} {alignment} is not a power of two from 8 to 1048576", subject=name
        )
    return alignment


def _name(what: str, value: Any, longest: int) -> str:
    name = arguments.text(what, value)
    size = len(name.encode())
    if not 0 < size <= longest:
        raise InvalidArgument(
            f"{what} {name[:80]!r} has {size} bytes, not 1 to {longest}",
            subject=name,
            limit=longest,
        )
    if "\0" in name:
        raise InvalidArgument(f"{what} {name!r} has a NUL", subject=name)
    return name


def _data(name: str, data: Any, *, blocks: bool) -> NDArray[Any]:
    if blocks and isinstance(data, (bytes, bytearray, memoryview)):
        return np.frombuffer(data, np.uint8)
    wanted = "an array or bytes" if blocks else "a NumPy array"
    try:
        if hasattr(data, "__array__"):
            arguments.refuse_masked("data", data)
            return np.ascontiguousarray(data)
    except TypeError as error:  # a tensor on a GPU, or in blocks
        raise InvalidArgument(f"{name}: {error}", subject="data") from None
    raise InvalidArgument(
        f"{name}: data must be {wanted}, not {type(data).__name__}", subject="data"
    )


def _regular_target(path: Path) -> Path:
    """The file to replace: `path`, or what it links to.

    Raises:
        FileError: something is there that is no regular file.
    """
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return path
    if not stat.S_ISREG(mode):
        folder = stat.S_ISDIR(mode)
        raise FileError(
            f"cannot write {path}: it is {'a folder' if folder else 'not a regular file'}",
            subject=str(path),
            errno=errno.EISDIR if folder else errno.EINVAL,
            filename=str(path),
        )
    return path


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
        self._alignment = _alignment("alignment", alignment)
        self._metadata: dict[str, bytes] = {}
        self._tensors: dict[str, _Tensor] = {}
        if alignment != 32:
            self.add(ALIGNMENT_KEY, alignment, "uint32")

    def add(self, key: str, value: Any, kind: str | None = None) -> None:
        """Adds one metadata value.

        Args:
            key: such as "llama.block_count"; must be new. "general.alignment" is also how the
                file's tensors are then aligned.
            value: bool, int, float, str, bytes (a string that is not UTF-8), or a list or
                one-dimensional array of one of them.
            kind: the value's or the elements' type, such as "uint64". Without it an int becomes
                uint32 (int32 or int64 where it does not fit), a float float32, an array its dtype.

        Raises:
            InvalidArgument: the key is taken or none that GGUF has, or the value has no GGUF type
                or does not fit it: nothing is wrapped or cut, but floats are rounded to float32.
        """
        key = _name("key", key, LONGEST_KEY)
        if key in self._metadata:
            raise InvalidArgument(f"{key} was added before", subject=key)
        if kind is not None and (not isinstance(kind, str) or kind not in VALUE_TYPES):
            raise InvalidArgument(
                f"{key}: no value type {kind!r}; there are {', '.join(VALUE_TYPES)}", subject=key
            )
        if key == ALIGNMENT_KEY:
            if kind not in (None, "uint32"):
                raise InvalidArgument(f"{key} is a uint32, not a {kind}", subject=key)
            self._alignment = value = _alignment(key, value)
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
        values = _data(name, data, blocks=format is not None)
        if format is None:
            formats = {"float32": "F32", "float16": "F16", "int32": "I32"}
            format = formats.get(str(values.dtype))
            if format is None:
                raise InvalidArgument(
                    f"{name}: {values.dtype} values need quantloom.quantize first", subject=name
                )
            shape = values.shape if shape is None else shape
        elif shape is None:
            raise InvalidArgument(f"{name}: blocks need the shape in weights", subject=name)
        self.add_tensor_chunks(name, shape, format, lambda: [values])
        added = self._tensors[name]
        if values.nbytes != added.bytes:
            expected = self._tensors.pop(name).bytes
            raise InvalidArgument(
                f"{name}: {values.nbytes} bytes, where {added.shape} in {format} takes {expected}",
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
            InvalidArgument: the name is taken or none that GGUF has, or the shape does not suit the
                format.
        """
        name = _name("tensor name", name, LONGEST_NAME)
        if name in self._tensors:
            raise InvalidArgument(f"tensor {name} was added before", subject=name)
        dimensions = tuple(arguments.extents("shape", shape))
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
        if max(size, rows * dimensions[-1]) > MOST_BYTES:
            raise InvalidArgument(
                f"{name}: shape {dimensions} takes more than {MOST_BYTES} bytes or weights",
                subject=name,
                limit=MOST_BYTES,
            )
        self._tensors[name] = _Tensor(name, dimensions, kind, size, chunks)

    def write(
        self, path: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Writes the file. It replaces one of the same name, at once and only when complete.

        Args:
            path: where to. Of a symbolic link the file that it names is replaced.
            progress: called with the tensor bytes written so far and in all.

        Raises:
            FileError: the file cannot be written, or something is there that is no regular file,
                such as a device.
            InvalidArgument: a tensor's chunks are not as many bytes as its shape says.
        """
        target = arguments.file_path("path", path)
        temporary: Path | None = None
        try:
            target = _regular_target(target)
            temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
            with open(temporary, "xb", buffering=1 << 20) as file:
                self._write(file, progress)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except FileError:
            raise
        except OSError as error:
            raise FileError.of("write", target, error) from error
        finally:
            if temporary is not None:
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
                raw = _flat_bytes(tensor.name, chunk)
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
