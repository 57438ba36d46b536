"""Arrays on the CPU or a GPU: plain numbers, or weights in their quantized GGUF blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from quantloom import _quantloom, arguments, buffers, dlpack
from quantloom.dtypes import dtype_name
from quantloom.errors import InvalidArgument, OutsideIndex, Unsupported
from quantloom.formats import TYPES, served_type
from quantloom.unshared import Unshared

__all__ = ["Tensor"]

_FORMAT_NAMES = {kind.id: name for name, kind in TYPES.items()}


class Tensor(Unshared):
    """An array on one device.

    `Tensor(array)` takes a NumPy array, anything with `__dlpack__` (PyTorch, CuPy, JAX), a file's
    tensor in its blocks, or a nested list; arrays and blocks are not copied. Make blocks with
    `Tensor.from_blocks`.

    A tensor on a GPU is handed on without a copy through `__dlpack__` and
    `__cuda_array_interface__`. Both order the hand-over: whoever takes it waits for the work that
    the other side has under way. What either does with it later, the other does not wait for.

    A quantized matrix on a GPU lies in its blocks as in the file, or packed: the same bits in the
    planes that the matrix product reads (`pack`, `is_packed`). Never in both: `quantloom.matmul`
    packs its matrix and lets go of the blocks. What needs blocks of a packed tensor (`numpy`,
    `dequantize`, rows, `.to("cpu")`) unpacks them for the length of the call.

    `==` is identity; compare what `.numpy()` gives. `copy.deepcopy` is `clone()`; `copy.copy` and
    `pickle` are refused.
    """

    __slots__ = ("__weakref__", "_held", "_packed")
    _held: Any  # numbers or blocks; None once packed
    _packed: Any
    _instead = "clone() has memory of its own, numpy() can be pickled"

    def __init__(self, data: Any, *, device: str | None = None) -> None:
        if isinstance(data, Tensor):
            source = data
        elif isinstance(data, np.ndarray):
            source = Tensor.from_numpy(data)
        elif hasattr(data, "__dlpack__"):
            source = Tensor.from_dlpack(data)
        else:
            from quantloom.file import LazyTensor  # which stands on this module

            source = (
                data.to("cpu")  # NumPy would decode it
                if isinstance(data, LazyTensor)
                else Tensor.from_numpy(arguments.array("data", data))
            )
        if device is not None:
            source = source.to(device)
        self._held = source._held  # first: another thread that packs it clears this last
        self._packed = source._packed

    @classmethod
    def _wrap(cls, native: Any, packed: Any = None) -> Tensor:
        tensor = cls.__new__(cls)
        tensor._packed = packed
        tensor._held = native
        return tensor

    @property
    def _native(self) -> Any:
        """The C++ tensor; of a packed one its blocks, in memory of their own."""
        held = self._held
        return self._packed.unpack() if held is None else held

    @property
    def _face(self) -> Any:
        """What knows shape, type and device: the C++ tensor or the planes."""
        held = self._held
        return self._packed if held is None else held

    def _let_go_of_blocks(self) -> Any:
        """The planes, made where there are none yet; the blocks' memory goes back to the pool."""
        held = self._held
        if held is not None:
            self._packed = _quantloom.PackedMatrix(held)
            self._held = None
        return self._packed

    @classmethod
    def empty(
        cls,
        shape: SupportsIndex | Iterable[SupportsIndex],
        dtype: Any = "float32",
        device: str = "cpu",
    ) -> Tensor:
        """A tensor whose contents are whatever was in the memory.

        Raises:
            InvalidArgument: a shape, dtype or device that does not exist.
            OutOfMemory: the device has no such memory; the message says what is free.
        """
        lengths = arguments.extents("shape", shape)
        where = arguments.text("device", device)
        return cls._wrap(_quantloom.Tensor.empty(dtype_name(dtype), lengths, where))

    @classmethod
    def from_numpy(cls, array: npt.NDArray[Any], *, dtype: Any = None) -> Tensor:
        """A view of `array` in its own memory, with its strides.

        Args:
            array: of booleans, integers or floats in the machine's byte order, each at an address
                that is a multiple of its size.
            dtype: another reading of the same bytes: "bfloat16" for an array of uint16.

        Raises:
            InvalidArgument: no array, one of another type or alignment, or one whose mask hides
                something.
        """
        return cls._wrap(buffers.array_taken(array, dtype))

    @classmethod
    def from_dlpack(cls, source: dlpack.Producer) -> Tensor:
        """A view of another library's array, on the device where it lies, without a copy.

        On a GPU the work that the other library has under way is waited for by quantloom's stream.

        Raises:
            InvalidArgument: no such array, or one of a type or on a device that is unknown here.
        """
        return cls._wrap(dlpack.taken(source))

    @classmethod
    def from_blocks(
        cls,
        blocks: Any,
        format: str,
        shape: SupportsIndex | Iterable[SupportsIndex],
        device: str | None = None,
    ) -> Tensor:
        """Quantized weights from their blocks as a GGUF file holds them, rows in order.

        Args:
            blocks: bytes, a buffer of 8-bit integers (for "F32" and "F16" of such floats, for
                "BF16" of uint16), or a uint8 Tensor (on a GPU too), contiguous and at an even
                address (F32 at a multiple of four).
            format: such as "Q4_K".
            shape: in weights, the last dimension whole blocks.
            device: where the tensor is to lie; by default where the blocks do, without a copy.

        Raises:
            InvalidArgument: no decoder for the format, a shape that is not whole blocks or takes
                another number of bytes, or `blocks` that are no bytes or not contiguous or aligned.
        """
        kind = served_type(format)
        dimensions = arguments.extents("shape", shape)
        where = None if device is None else arguments.text("device", device)
        if isinstance(blocks, Tensor):
            native = _quantloom.Tensor.blocks_of(blocks._native, kind.id, dimensions)
        else:
            native = buffers.blocks_taken(blocks, kind, dimensions)
        return cls._wrap(native if where is None else native.to(where))

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension, of blocks in weights."""
        return tuple(self._face.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one index to the next; 0 for the last dimension of blocks."""
        if self.is_packed:
            return (TYPES[self._format_name()].row_bytes(self.shape[1]), 0)
        return tuple(self._face.strides)

    @property
    def dtype(self) -> str:
        """Type of an element as NumPy names it; of blocks the format, such as "Q4_K"."""
        return self._format_name() if self.is_quantized else str(self._face.dtype)

    @property
    def format(self) -> str | None:
        """The GGUF format, such as "Q4_K" or "F16"; None for types that no weights have."""
        if self.is_quantized or self._face.dtype in ("float32", "float16", "bfloat16"):
            return self._format_name()
        return None

    def _format_name(self) -> str:
        return _FORMAT_NAMES[self._face.format]

    @property
    def device(self) -> str:
        """Where the memory is: "cpu" or "cuda:N"."""
        return str(self._face.device)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, gaps between rows not counted; of planes all that they take.

        Planes take what the blocks do with rows rounded up to a multiple of 16, and 16 bytes more.
        """
        return int(self._face.nbytes)

    @property
    def is_quantized(self) -> bool:
        """Whether the elements are quantized."""
        return self.is_packed or bool(self._face.is_blocks)

    @property
    def is_packed(self) -> bool:
        """Whether the memory holds planes instead of blocks."""
        return self._held is None

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in C order without gaps."""
        return self.is_packed or bool(self._face.is_contiguous)

    @property
    def is_read_only(self) -> bool:
        """Whether the memory may only be read."""
        return not self.is_packed and bool(self._face.is_read_only)

    def __len__(self) -> int:
        if not self.shape:
            raise Unsupported("len() of a 0-dimensional tensor")
        return self.shape[0]

    def __bool__(self) -> bool:
        """The truth of the number of a 0-dimensional tensor.

        Raises:
            InvalidArgument: it has dimensions; ask `len()`, or NumPy's `any` and `all`.
        """
        if self.shape:
            raise InvalidArgument(
                f"the truth of a tensor of shape {self.shape} is ambiguous; ask len(t), "
                "t.numpy().any() or t.numpy().all()",
                subject="tensor",
            )
        return bool(self.numpy())

    def __iter__(self) -> Iterator[Tensor]:
        """The rows of the first dimension, in the same memory; a packed tensor is unpacked once.

        Raises:
            Unsupported: no rows: 0-dimensional, or single weights of a block.
        """
        if not self.shape:
            raise Unsupported("iteration over a 0-dimensional tensor")
        native = self._native
        if native.is_blocks and self.ndim == 1:
            raise Unsupported("a single weight of a block has no address; dequantize first")
        return (Tensor._wrap(native.row(i)) for i in range(self.shape[0]))

    def __contains__(self, value: object) -> bool:
        """Whether any element equals `value`, as of a NumPy array.

        Raises:
            Unsupported: the tensor is on a GPU or in blocks; call `.numpy()` or `.dequantize()`.
        """
        return value in self.__array__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.clone()

    def __repr__(self) -> str:
        layout = ", packed" if self.is_packed else ""
        return f"<Tensor {self.dtype} {self.shape} on {self.device}{layout}>"

    def to(self, device: str) -> Tensor:
        """This tensor where it lies on `device` already, else a copy there, in blocks.

        Raises:
            InvalidArgument: `device` is not "cpu", "cuda" or "cuda:N".
            DeviceError: it is not there; the message says why.
            OutOfMemory: it has no room.
        """
        device = arguments.text("device", device)
        if device in (self.device, "cuda" if self.device == "cuda:0" else None):
            return self  # no second owner of blocks, which a product would leave beside its planes
        return Tensor._wrap(self._native.to(device))

    def pack(self) -> Tensor:
        """This quantized matrix in the planes that a GPU multiplies from; itself where it is.

        Lossless, in memory of its own: this tensor keeps its blocks until it is dropped.

        Raises:
            InvalidArgument: no quantized matrix (rows, columns), or on the CPU, which multiplies
                from blocks.
            OutOfMemory: the device has no room for the planes beside the blocks.
        """
        if self.is_packed:
            return self
        return Tensor._wrap(None, _quantloom.PackedMatrix(self._native))

    def unpack(self) -> Tensor:
        """This tensor in its blocks, bit for bit; itself where they are what it holds."""
        return Tensor._wrap(self._native) if self.is_packed else self

    def cpu(self) -> Tensor:
        """Shorthand for `.to("cpu")`."""
        return self.to("cpu")

    def contiguous(self) -> Tensor:
        """This tensor where it is in C order, else a copy that is."""
        return self if self.is_contiguous else Tensor._wrap(self._native.contiguous())

    def clone(self) -> Tensor:
        """A copy in memory of its own on the same device."""
        return Tensor._wrap(self._native.clone())

    def reshape(self, *shape: Any) -> Tensor:
        """The same memory with another shape; one dimension may be -1.

        Raises:
            InvalidArgument: the sizes differ, the memory has gaps, or blocks would be cut.
        """
        dimensions = shape[0] if len(shape) == 1 else shape
        return Tensor._wrap(self._native.reshape(arguments.extents("shape", dimensions)))

    def __getitem__(self, index: SupportsIndex | slice) -> Tensor:
        """Rows of the first dimension, in the same memory and on the same device.

        Raises:
            OutsideIndex: there is no such row; it is an IndexError and an InvalidArgument.
            InvalidArgument: neither an integer nor a slice, or parts of blocks.
        """
        if not self.shape:
            raise OutsideIndex("a 0-dimensional tensor has no rows", subject="index", limit=0)
        rows = self.shape[0]
        if isinstance(index, slice):
            first, count, step = arguments.row_slice(index, rows)
            return Tensor._wrap(self._native.slice(first, count, step))
        position = arguments.row_index(index)
        if self.is_quantized and self.ndim == 1:
            raise InvalidArgument(
                "a single weight of a block has no address; slice whole blocks or dequantize",
                subject="index",
            )
        if not -rows <= position < rows:
            shown = position if position.bit_length() < 256 else f"of {position.bit_length()} bits"
            raise OutsideIndex(
                f"index {shown} is outside the {rows} there are", subject="index", limit=rows
            )
        return Tensor._wrap(self._native.row(position % rows))

    def as_bytes(self) -> Tensor:
        """The blocks as the uint8 they are, rows in the first dimensions; the same memory."""
        return Tensor._wrap(self._native.as_bytes())

    def numpy(self) -> npt.NDArray[Any]:
        """A NumPy array: of a CPU tensor a view, of a GPU tensor a copy.

        bfloat16, which NumPy has not, comes as a copy in float32; blocks come as their bytes
        (uint8).

        Raises:
            Unsupported: more dimensions than the 64 that NumPy has.
        """
        return buffers.array_given(self._native)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """For NumPy's functions. Only on the CPU: nothing leaves a GPU without `.numpy()`."""
        if self.device != "cpu" or self.is_quantized:
            raise Unsupported(f"{self!r} is not a NumPy array; call .numpy() or .dequantize()")
        return buffers.array_as_asked(self._native, dtype, copy)

    def dequantize(self, dtype: Any = "float32", *, out: Tensor | None = None) -> Tensor:
        """The values as float32, float16 or bfloat16, on the same device.

        Args:
            dtype: of the result; 16-bit ones are rounded to nearest even from the float32 value.
            out: a contiguous tensor of that type and this shape to write to.

        Raises:
            InvalidArgument: no such dtype, or `out` does not fit.
        """
        if out is not None and not isinstance(out, Tensor):
            raise InvalidArgument(
                f"out must be a quantloom.Tensor, not {type(out).__name__}", subject="out"
            )
        native = self._native.dequantize(dtype_name(dtype), None if out is None else out._native)
        return Tensor._wrap(native) if out is None else out

    def __dlpack_device__(self) -> tuple[int, int]:
        """The device in DLPack's numbers: (1, 0) the CPU, (2, n) GPU n."""
        return dlpack.place(self.device)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule of this memory, for the consumer's stream.

        Args:
            stream: on a GPU, the stream the consumer works on: None or 1 the legacy default, 2 the
                per-thread default, a handle, or -1 to order the work itself.
            max_version: the highest DLPack version that the consumer reads.
            dl_device: where the consumer wants it; only (1, 0) differs from where it is, a copy.
            copy: True always, False never copies; None where it must be.

        Raises:
            BufferError: blocks, or what was asked cannot be had.
        """
        if self.is_quantized:
            raise BufferError("DLPack has no type for blocks; use as_bytes() or dequantize()")
        version = (0, 0) if max_version is None else max_version
        return dlpack.given(self._native, self.device, stream, version, dl_device, copy)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the interface, for tensors on a GPU."""
        if self.device == "cpu":
            raise AttributeError("a tensor on the CPU has no __cuda_array_interface__")
        if self.is_quantized or self.dtype == "bfloat16":
            raise AttributeError(f"{self.dtype} has no type in __cuda_array_interface__")
        return buffers.cuda_interface(self._native)
