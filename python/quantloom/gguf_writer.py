"""Writes GGUF files, version 3. A file appears under its name only when it is complete."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from quantloom import arguments
from quantloom.errors import FileError, InvalidArgument
from quantloom.formats import TensorType, tensor_type
from quantloom.gguf_values import ARRAY, VALUE_TYPES, array, inferred, scalar, string

__all__ = ["GGUFWriter"]

VERSION = 3
LONGEST_NAME = 63  # bytes; readers keep tensor names in 64 with a NUL
LONGEST_KEY = 65535  # bytes, the format's own limit
MOST_DIMENSIONS = 4
MOST_BYTES = 2**63 - 1  # of a tensor
ALIGNMENT_KEY = "general.alignment"

# What an array of a format's own elements is in NumPy; every other format is bytes.
_ELEMENTS = {
    "F32": ("float32",),
    "F16": ("float16",),
    "BF16": ("bfloat16", "uint16"),
    "F64": ("float64",),
    "I8": ("int8",),
    "I16": ("int16",),
    "I32": ("int32",),
    "I64": ("int64",),
}

Chunk = bytes | memoryview | NDArray[Any]


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    type: TensorType
    bytes: int
    chunks: Callable[[], Iterable[Chunk]]


def _flat_bytes(name: str, format: str, chunk: Chunk) -> bytes | memoryview:
    if isinstance(chunk, np.ndarray):
        allowed = ("uint8", *_ELEMENTS.get(format, ()))
        if str(chunk.dtype) not in allowed:  # other numbers, or in the other byte order
            raise InvalidArgument(
                f"{name}: an array of {chunk.dtype} is not the bytes of {format}, which come as "
                f"{' or '.join(allowed)}",
                subject=name,
            )
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
    wanted = "an array or bytes" if blocks else "a NumPy array"
    try:
        if blocks and isinstance(data, (bytes, bytearray, memoryview)):
            return np.frombuffer(data, np.uint8)
        if hasattr(data, "__array__"):
            arguments.refuse_masked("data", data)
            return np.ascontiguousarray(data)
    except (TypeError, BufferError) as error:  # a tensor on a GPU or in blocks; memory with gaps
        raise InvalidArgument(f"{name}: {error}", subject="data") from None
    raise InvalidArgument(
        f"{name}: data must be {wanted}, not {type(data).__name__}", subject="data"
    )


def _regular_target(path: Path) -> tuple[Path, int | None]:
    """The file to replace, `path` or what it links to, and its permissions where it is there.

    Raises:
        FileError: something is there that is no regular file.
    """
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return path, None
    if not stat.S_ISREG(mode):
        folder = stat.S_ISDIR(mode)
        raise FileError(
            f"cannot write {path}: it is {'a folder' if folder else 'not a regular file'}",
            subject=str(path),
            errno=errno.EISDIR if folder else errno.EINVAL,
            filename=str(path),
        )
    return path, stat.S_IMODE(mode) & 0o777


def _opener(permissions: int | None) -> Callable[[str, int], int]:
    """For `open`: a new file has these permissions, or where None are given the usual ones."""

    def opener(name: str, flags: int) -> int:
        if permissions is None:
            return os.open(name, flags, 0o666)
        descriptor = os.open(name, flags, 0o600)
        os.fchmod(descriptor, permissions)  # open() itself would leave out those of the umask
        return descriptor

    return opener


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
                uint32 (int32 or int64 where it or another of its list does not fit), a float
                float32, an array of numbers its dtype.

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
            self._metadata[key] = struct.pack("<I", ARRAY) + array(key, value, kind)
            return
        kind = kind or inferred(key, value)
        self._metadata[key] = struct.pack("<I", VALUE_TYPES[kind][0]) + scalar(key, value, kind)

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
            data: float32, float16 or int32 values, or with `format` the bytes of its blocks or, of
                a type of plain numbers, an array of these (of BF16 their bits in uint16). It is
                read while the file is written, so leave it as it is until then.
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
        try:
            _flat_bytes(name, added.type.name, values)
            if values.nbytes != added.bytes:
                raise InvalidArgument(
                    f"{name}: {values.nbytes} bytes, where {added.shape} in {format} takes "
                    f"{added.bytes}",
                    subject=name,
                    limit=added.bytes,
                )
        except InvalidArgument:
            del self._tensors[name]
            raise

    def add_tensor_chunks(
        self,
        name: str,
        shape: Sequence[int],
        format: str,
        chunks: Callable[[], Iterable[Chunk]],
    ) -> None:
        """Adds a tensor whose bytes `chunks()` yields piece by piece while the file is written.

        A piece is contiguous bytes, or an array as `add_tensor` takes with `format`.

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
            path: where to. Of a symbolic link the file that it names is replaced. A file that is
                replaced hands on its permissions.
            progress: called with the tensor bytes written so far and in all.

        Raises:
            FileError: the file cannot be written, or something is there that is no regular file,
                such as a device.
            InvalidArgument: a tensor's chunks are no bytes, or not as many as its shape says, or
                `progress` cannot be called.
        """
        target = arguments.file_path("path", path)
        arguments.check_progress(progress)
        temporary: Path | None = None
        try:
            target, permissions = _regular_target(target)
            # Without the target's name, which may be as long as a name can be.
            temporary = target.with_name(f".{secrets.token_hex(6)}.part")
            with open(temporary, "xb", 1 << 20, opener=_opener(permissions)) as file:
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
                with suppress(OSError):  # it is the target by now, or was never made
                    temporary.unlink()

    def _write(self, file: BinaryIO, progress: Callable[[int, int], None] | None) -> None:
        file.write(b"GGUF")
        file.write(struct.pack("<IQQ", VERSION, len(self._tensors), len(self._metadata)))
        for key, value in self._metadata.items():
            file.write(string(key) + value)
        offset = 0
        for tensor in self._tensors.values():
            file.write(string(tensor.name))
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
                raw = _flat_bytes(tensor.name, tensor.type.name, chunk)
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
