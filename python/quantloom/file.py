"""`quantloom.open`: a GGUF file as a mapping of metadata and a mapping of lazy tensors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

import quantloom
from quantloom import _quantloom, arguments
from quantloom.errors import Closed, FileError, ModelError, Unsupported
from quantloom.tables import bytes_text, escaped, html_table, shortened, text_table
from quantloom.unshared import Unshared

__all__ = ["File", "LazyTensor", "Metadata", "MetadataValue", "Tensors", "open"]

MetadataValue: TypeAlias = "str | bytes | int | float | bool | list[str] | npt.NDArray[Any]"
"""What a metadata key can hold.

Strings are `str`; one whose bytes are not UTF-8 comes as `bytes`, also inside a list, so that
nothing is lost or made up. Arrays of strings are lists, arrays of numbers and bools NumPy arrays of
the file's own type.
"""

# NumPy's view of the types that are plain numbers but no weight format.
_PLAIN = {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "F64": np.float64}

# A URL, of which a Path keeps one slash, or a repository, with a quant or without.
_OF_THE_HUB = re.compile(r"https?:/.*|[\w.-]+/[\w.-]+(?<!\.gguf)(:[\w.-]+)?")


def open(path: str | os.PathLike[str]) -> File:
    """Opens a GGUF file, or a split one by any of its shards, reading its header only.

    Args:
        path: the file, which may begin with "~"; the other shards of a split file are found beside
            it by their names.

    Returns:
        The file, mapped into memory. Use it as a context manager or call `close()`.

    Raises:
        InvalidArgument: `path` is no path.
        FileError: the file is absent or cannot be mapped; `errno` and `filename` say which and why.
        GGUFError: the file is not valid GGUF; the error names the key or tensor, the byte offset
            and the limit.
    """
    return File(path)


def _hint_at_the_hub(given: str, error: OSError) -> None:
    """Raises FileError of an absent file whose name is a URL or a repository's."""
    if _OF_THE_HUB.fullmatch(given):
        address = re.sub(r"^(https?):/+", r"\1://", given)
        raise FileError(
            f"cannot open {address}: {error.strerror}; `quantloom download owner/name:quant` "
            "fetches from the hub",
            subject=given,
            errno=error.errno,
            filename=given,
        ) from None


class _Handle:
    """The C++ file, shared by a File and all that it handed out; None once closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # As text: Ctrl-C while C++ asks a path for it would come out as a TypeError.
        self._file: Any = _quantloom.GGUFFile.open(os.fspath(path))

    @property
    def closed(self) -> bool:
        return self._file is None

    @property
    def file(self) -> Any:
        if self._file is None:
            raise Closed(f"{self.path.name} is closed", subject=str(self.path))
        return self._file

    def close(self) -> None:
        self._file = None

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise Unsupported(
            "what belongs to an open file is not pickled or copied deeply; dict() of the metadata "
            "and arrays can be"
        )


class Metadata(Mapping[str, MetadataValue]):
    """The metadata in file order. A value is converted when it is first asked for, and then kept.

    Treat lists as read-only; arrays are. `==` compares with any mapping; NaN equals NaN.

    Raises:
        FileError: text or an array is first asked for when the file has changed since it was
            opened.
    """

    def __init__(self, handle: _Handle) -> None:
        self._handle = handle
        self._position = {key: i for i, key in enumerate(handle.file.keys())}
        self._values: dict[str, MetadataValue] = {}

    def __getitem__(self, key: str) -> MetadataValue:
        position = self._position[key]
        file = self._handle.file
        if key not in self._values:
            value = file.value(position)
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
            self._values[key] = value
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._position)

    def __len__(self) -> int:
        return len(self._position)

    def __contains__(self, key: object) -> bool:
        return key in self._position

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        if other is self:
            return True
        return self.keys() == other.keys() and all(_equal(self[key], other[key]) for key in self)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def type(self, key: str) -> str:
        """The type in the file: "uint32", "string", ... or, for an array, "string[32000]"."""
        name, size = self._handle.file.value_type(self._position[key])
        return name if size is None else f"{name}[{size}]"

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for key, position in self._position.items():
            kind, size = self._handle.file.value_type(position)
            # Long arrays show their type alone: looking at a file converts no vocabulary.
            long = size is not None and size > 8
            value = "..." if long else self[key]
            if kind == "float32" and isinstance(value, float):
                value = np.float32(value)  # 1e-05, not 9.999999747378752e-06
            yield key, self.type(key), str(value)

    def __repr__(self) -> str:
        if self._handle.closed:
            return "<Metadata of a closed file>"
        return text_table(("key", "type", "value"), self._rows())

    def _repr_html_(self) -> str:
        return html_table(("key", "type", "value"), [] if self._handle.closed else self._rows())


def _equal(left: Any, right: Any) -> bool:
    """Whether two values of metadata are one; NaN, which a file can hold, is itself."""
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return np.array_equal(left, right, equal_nan=left.dtype.kind == right.dtype.kind == "f")
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        left, right = (v.tolist() if isinstance(v, np.ndarray) else v for v in (left, right))
    return bool(left == right or (left != left and right != right))


class LazyTensor:
    """A tensor that stays in the file until it is asked for.

    `==` is whether both are the same tensor of the same open file, not whether weights are equal.

    Attributes:
        name: such as "blk.0.attn_q.weight".
        shape: NumPy order: rows before columns; the last one is the length of a row.
        format: the type's name, such as "Q4_K".
        nbytes: bytes of its blocks.
        offset: where its blocks begin, in bytes from the start of its file.
        shard: which file of a split one, from 0.
    """

    def __init__(
        self,
        handle: _Handle,
        position: int,
        fields: tuple[str, tuple[int, ...], str, int, int, int],
    ) -> None:
        self._handle = handle
        self._position = position
        self.name, self.shape, self.format, self.nbytes, self.offset, self.shard = fields

    @property
    def type(self) -> str:
        """The same as `format`."""
        return self.format

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of weights."""
        product = 1
        for length in self.shape:
            product *= length
        return product

    @property
    def bits_per_weight(self) -> float:
        """Bits that one weight takes in the file, its share of the scales included."""
        return 8 * self.nbytes / self.size

    @property
    def bytes(self) -> npt.NDArray[np.uint8]:
        """The blocks as they stand in the file: a flat read-only view, nothing is copied.

        The view keeps the mapping alive, also after the file's `close()`.

        Raises:
            Closed: the file was closed.
            FileError: the file has changed on disk since it was opened.
            GGUFError: the file is a header without tensor data.
        """
        view: npt.NDArray[np.uint8] = self._handle.file.tensor_bytes(self._position)
        return view

    def to(self, device: str) -> quantloom.Tensor:
        """The blocks as a :class:`quantloom.Tensor`; on the CPU in the file's own memory.

        Raises:
            ModelError: there is no decoder for the tensor's type.
            InvalidArgument: no such device, or blocks that the file aligns to less than two bytes
                (values of F32 to less than four).
            DeviceError, OutOfMemory: the device is not there, or has no room for it.
            Closed, FileError, GGUFError: as for `bytes`.
        """
        from quantloom.formats import tensor_type

        if not tensor_type(self.format).served:
            raise ModelError(
                f"tensor {self.name!r} is of type {self.format}, for which there is no decoder",
                subject=self.name,
            )
        return quantloom.Tensor.from_blocks(self.bytes, self.format, self.shape, device)

    def dequantize(self, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """The weights as a new array of `shape` and `dtype`, decoded in float32.

        Plain numbers (I8 to I64, F64) go from their own type to `dtype`. NumPy converts, and warns
        of what overflows.

        Raises:
            TypeError: `dtype` is none of NumPy's.
            ModelError: no decoder exists for the tensor's type; the message names it.
            Closed, FileError, GGUFError: as for `bytes`.
        """
        blocks = self.bytes
        if self.format in _PLAIN:
            values = blocks.view(_PLAIN[self.format])
            return values.reshape(self.shape).astype(dtype)
        from quantloom.formats import tensor_type

        entry = tensor_type(self.format)
        if not entry.served:
            raise ModelError(
                f"tensor {self.name!r} is of type {self.format}, for which there is no decoder",
                subject=self.name,
            )
        decoded: npt.NDArray[np.float32] = _quantloom.dequantize(blocks, entry.id)
        return decoded.reshape(self.shape).astype(dtype, copy=False)

    def check_finite(self) -> None:
        """Looks for NaN and Inf in the scales of all blocks.

        Raises:
            GGUFError: naming the first block that has one, with its byte offset.
            Closed, FileError: as for `bytes`.
        """
        self._handle.file.check_finite(self._position)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("decoding a tensor always makes a new array")
        return self.dequantize(np.float32 if dtype is None else dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LazyTensor):
            return NotImplemented
        return self._handle is other._handle and self._position == other._position

    def __hash__(self) -> int:
        return hash((id(self._handle), self._position))

    def __len__(self) -> int:
        return self.shape[0]

    def _row(self) -> tuple[str, str, str, str]:
        shape = " x ".join(str(length) for length in self.shape)
        return self.name, self.format, shape, bytes_text(self.nbytes)

    def __repr__(self) -> str:
        shape = " x ".join(str(length) for length in self.shape)
        return f"<LazyTensor {self.name!r}: {self.format}, {shape}, {bytes_text(self.nbytes)}>"

    def _repr_html_(self) -> str:
        return html_table(("tensor", "format", "shape", "size"), [self._row()])


class Tensors(Mapping[str, LazyTensor]):
    """The tensors by name, in file order."""

    def __init__(self, handle: _Handle) -> None:
        self._handle = handle
        self._position = {name: i for i, name in enumerate(handle.file.tensor_names())}

    def __getitem__(self, name: str) -> LazyTensor:
        position = self._position[name]
        return LazyTensor(self._handle, position, self._handle.file.tensor(position))

    def __iter__(self) -> Iterator[str]:
        return iter(self._position)

    def __len__(self) -> int:
        return len(self._position)

    def __contains__(self, name: object) -> bool:
        return name in self._position

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        if self._handle.closed:
            return "<Tensors of a closed file>"
        rows = (tensor._row() for tensor in self.values())
        return text_table(("tensor", "format", "shape", "size"), rows)

    def _repr_html_(self) -> str:
        rows = [] if self._handle.closed else [tensor._row() for tensor in self.values()]
        return html_table(("tensor", "format", "shape", "size"), rows)


class File(Unshared):
    """An open GGUF file. Made by :func:`open`.

    Attributes:
        path: as given to :func:`open`, "~" expanded.
        version: of the format, 2 or 3.
        alignment: of the tensors' data, in bytes.
        metadata: the keys and their values, a mapping.
        tensors: the tensors by name, a mapping.
        has_data: False for a table of tensors that ends where their data would begin.
        shards: number of files, 1 unless the file is split.
        nbytes: size of the file, of all shards together.
    """

    _instead = "open() its path again"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = arguments.file_path("path", path)
        try:
            self._handle = _Handle(self.path)
        except FileNotFoundError as error:
            _hint_at_the_hub(os.fspath(path), error)
            raise
        file = self._handle.file
        self.version: int = file.version
        self.alignment: int = file.alignment
        self.has_data: bool = file.has_data
        self.shards: int = file.shard_count
        self.nbytes: int = file.total_bytes
        self.metadata = Metadata(self._handle)
        self.tensors = Tensors(self._handle)

    @property
    def architecture(self) -> str | None:
        """The value of `general.architecture`; None where it is absent or no text."""
        value = self.metadata.get("general.architecture")
        return value if isinstance(value, str) else None

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._handle.closed

    def close(self) -> None:
        """Lets go of the file; its metadata and tensors raise Closed from then on.

        Arrays that were handed out stay valid; the mapping goes with the last of them.
        """
        self._handle.close()

    def __enter__(self) -> File:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _summary(self) -> str:
        state = ", closed" if self.closed else "" if self.has_data else ", header only"
        parts = f", {self.shards} shards" if self.shards > 1 else ""
        return (
            f"GGUF version {self.version}, {len(self.metadata)} keys, {len(self.tensors)} tensors, "
            f"{bytes_text(self.nbytes)}{parts}{state}"
        )

    def __repr__(self) -> str:
        kind = "" if self.closed or self.architecture is None else f" {self.architecture}"
        return f"<quantloom.File {shortened(self.path.name)!r}:{shortened(kind)} {self._summary()}>"

    def _repr_html_(self) -> str:
        head = f"<p><b>{escaped(self.path.name)}</b>: {escaped(self._summary())}</p>"
        if self.closed:
            return head
        return (
            f"{head}<details><summary>metadata</summary>{self.metadata._repr_html_()}</details>"
            f"<details><summary>tensors</summary>{self.tensors._repr_html_()}</details>"
        )
