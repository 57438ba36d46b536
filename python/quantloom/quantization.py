"""Quantization of arrays and of whole files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantloom import _quantloom, arguments
from quantloom.errors import FileError, InvalidArgument, NumericsError
from quantloom.formats import FORMATS, TensorType, served_type, tensor_type
from quantloom.gguf_writer import GGUFWriter
from quantloom.mixes import MIXES, Mix, Model, Source, choose

__all__ = ["QuantizationSummary", "dequantize", "quantize", "quantize_file"]

QUANTIZATION_VERSION = 2  # of the block layouts, as general.quantization_version counts them
CHUNK = 1 << 23  # weights quantized at a time: 32 MB of float32

_FLOAT_FORMATS = ("F32", "F16", "BF16")
# Written by quantize_file itself, or no longer true of the file that it writes.
_REPLACED_KEYS = (
    "general.file_type",
    "general.quantization_version",
    "general.alignment",
    "split.no",
    "split.count",
    "split.tensors.count",
)


def _threads(threads: Any) -> int:
    return arguments.integer("threads", threads, 0, arguments.MOST_THREADS)


def quantize(array: ArrayLike, format: str, *, threads: int = 0) -> NDArray[np.uint8]:
    """Blocks of `format` that hold the values with the smallest squared error found.

    Args:
        array: real numbers [..., elements]; the last axis is a row of whole blocks.
        format: GGUF type name, such as "Q4_K"; `quantloom.formats.FORMATS` says which can be
            written.
        threads: up to 1024; 0 for all cores.

    Returns:
        uint8 [..., bytes], each row's blocks as a GGUF file holds them.

    Raises:
        InvalidArgument: a format that cannot be written, rows that are not whole blocks, what is no
            array of numbers, a mask that hides some, or `threads` outside its range.
        NumericsError: NaN, Inf or a value too large for the format; the message says which.
    """
    threads = _threads(threads)
    kind = served_type(format)
    if not kind.encodable:
        known = ", ".join(name for name, entry in FORMATS.items() if entry.encodable)
        raise InvalidArgument(f"{kind.name} cannot be written; {known} can", subject="format")
    values = arguments.array("array", array)
    if values.dtype.kind not in "fiub":
        raise InvalidArgument(f"{values.dtype} values are not real numbers", subject="array")
    if values.ndim == 0 or values.size == 0:
        raise InvalidArgument(f"an array of shape {values.shape} has no weights", subject="array")
    row = kind.row_bytes(values.shape[-1])
    with np.errstate(over="ignore"):  # what becomes infinite is refused below
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    try:
        blocks: NDArray[np.uint8] = _quantloom.quantize(flat, kind.id, threads)
    except NumericsError:
        _refuse_beyond_float32(values, flat, kind)
        raise
    return blocks.reshape(*values.shape[:-1], row)


def _refuse_beyond_float32(values: NDArray[Any], flat: NDArray[Any], kind: TensorType) -> None:
    """Names the number that was given where float32 made an infinite one of it."""
    first = int(np.argmin(np.isfinite(flat)))
    given = values.reshape(-1)[first]
    if np.isfinite(given) and not np.isfinite(flat[first]):
        raise NumericsError(
            f"value {first} is {given}, too large for {kind.name}", subject="values"
        ) from None


def dequantize(
    blocks: bytes | bytearray | memoryview | NDArray[np.uint8], format: str, *, threads: int = 0
) -> NDArray[np.float32]:
    """float32 values of blocks of `format`.

    Args:
        blocks: raw bytes, or uint8 [..., bytes] as `quantize` returns them.
        format: GGUF type name of one of `quantloom.formats.FORMATS`.
        threads: up to 1024; 0 for all cores.

    Returns:
        float32 [..., elements].

    Raises:
        InvalidArgument: a format without a decoder, rows that are not whole blocks, or `threads`
            outside its range.
    """
    threads = _threads(threads)
    kind = served_type(format)
    arguments.refuse_masked("blocks", blocks)
    try:
        raw = blocks if isinstance(blocks, np.ndarray) else np.frombuffer(blocks, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise InvalidArgument(f"blocks are no bytes: {error}", subject="blocks") from None
    if raw.dtype != np.uint8 or raw.ndim == 0:
        raise InvalidArgument("blocks must be bytes or an array of uint8", subject="blocks")
    if raw.shape[-1] % kind.bytes != 0:
        raise InvalidArgument(
            f"rows of {raw.shape[-1]} bytes are not whole {kind.name} blocks of {kind.bytes}",
            subject="blocks",
            limit=kind.bytes,
        )
    flat = np.ascontiguousarray(raw).reshape(-1)
    values: NDArray[np.float32] = _quantloom.dequantize(flat, kind.id, threads)
    return values.reshape(*raw.shape[:-1], raw.shape[-1] // kind.bytes * kind.elements)


@dataclass
class QuantizationSummary:
    """What `quantize_file` wrote.

    Attributes:
        mix: name of the mix.
        formats: number of tensors of each format in the new file.
        notes: in words, what did not go by the mix's own formats, and why.
        source_bytes: tensor bytes before.
        target_bytes: tensor bytes after.
    """

    mix: str
    formats: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    source_bytes: int = 0
    target_bytes: int = 0


@dataclass(frozen=True)
class _Weights:
    index: int
    source: Source
    format: TensorType
    target: TensorType


def quantize_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    mix: str = "Q4_K_M",
    progress: Callable[[int, int], None] | None = None,
    *,
    allow_requantize: bool = False,
    threads: int = 0,
) -> QuantizationSummary:
    """Writes a GGUF file with the weights of another in smaller formats.

    Metadata is kept; general.file_type and general.quantization_version say what the new file is.
    Norms, biases, expert gates and other small tensors stay as they are. A split source becomes one
    file. The target appears only when it is complete.

    Args:
        source: GGUF file, or any part of a split one, in F32, F16 or BF16.
        target: file to write; one of that name is replaced, of a symbolic link the file that it
            names.
        mix: name of one of `quantloom.mixes.MIXES`, such as "Q4_K_M".
        progress: called with the tensor bytes written so far and in all.
        allow_requantize: take weights that are quantized already; their error adds up.
        threads: up to 1024; 0 for all cores.

    Returns:
        The formats that were used, and notes on tensors that could not have the one meant for them.

    Raises:
        InvalidArgument: an unknown mix, quantized weights that it wants in another format without
            `allow_requantize`, a target that is the source or a part of it, or `threads` outside
            its range.
        GGUFError: the source is not valid GGUF.
        FileError: a file that cannot be read or written, or a target that is no regular file.
        NumericsError: a tensor with NaN, Inf or a value too large; the error names it.
    """
    threads = _threads(threads)
    allow_requantize = arguments.flag("allow_requantize", allow_requantize)
    source = arguments.file_path("source", source)
    target = arguments.file_path("target", target)
    arguments.check_progress(progress)
    recipe = MIXES.get(arguments.text("mix", mix).upper())
    if recipe is None:
        raise InvalidArgument(f"no mix {mix!r}; there are {', '.join(MIXES)}", subject="mix")
    file = _quantloom.GGUFFile.open(os.fspath(source))
    for part in _parts(source, file.shard_count):
        try:
            same = os.path.samefile(part, target)
        except FileNotFoundError:
            same = False
        except OSError as error:
            raise FileError.of("write", target, error) from error
        if same:
            what = "the same file" if part == source else f"files of one model: {part.name}"
            raise InvalidArgument(f"source and target are {what}", subject="target")
    summary = QuantizationSummary(recipe.name)
    plan = _plan(file, recipe, summary, allow_requantize)

    writer = GGUFWriter(alignment=max(8, file.alignment))  # the least that every reader takes
    for index, key in enumerate(file.keys()):
        if key not in _REPLACED_KEYS:
            kind, _ = file.value_type(index)
            writer.add(key, file.value(index), kind)
    writer.add("general.quantization_version", QUANTIZATION_VERSION, "uint32")
    writer.add("general.file_type", recipe.file_type, "uint32")
    for weights in plan:
        writer.add_tensor_chunks(
            weights.source.name,
            weights.source.shape,
            weights.target.name,
            lambda weights=weights: _chunks(file, weights, threads),  # type: ignore[misc]
        )
        rows = int(np.prod(weights.source.shape[:-1]))
        summary.source_bytes += rows * weights.format.row_bytes(weights.source.shape[-1])
        summary.target_bytes += rows * weights.target.row_bytes(weights.source.shape[-1])
    summary.formats = dict(Counter(weights.target.name for weights in plan))
    writer.write(target, progress)
    return summary


def _parts(source: Path, count: int) -> list[Path]:
    """All files of a source of `count` shards, of which it is one."""
    if count == 1:
        return [source]
    prefix = source.name.rsplit("-", 3)[0]
    names = (f"{prefix}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1))
    return [source.with_name(name) for name in names]


def _plan(
    file: Any, recipe: Mix, summary: QuantizationSummary, allow_requantize: bool
) -> list[_Weights]:
    metadata = {key: index for index, key in enumerate(file.keys())}

    def integer(name: str) -> int:
        index = metadata.get(f"{architecture}.{name}")
        value = file.value(index) if index is not None else 0
        if isinstance(value, np.ndarray):
            return int(value.max()) if value.size > 0 and value.dtype.kind in "iu" else 0
        return int(value) if isinstance(value, int) else 0

    index = metadata.get("general.architecture")
    architecture = str(file.value(index)) if index is not None else ""
    sources, formats = [], []
    for position in range(len(file.tensor_names())):
        name, shape, format, *_ = file.tensor(position)
        sources.append(Source(name, tuple(shape)))
        formats.append(tensor_type(format))
    model = Model(
        architecture=architecture,
        blocks=integer("block_count"),
        experts=integer("expert_count"),
        heads=integer("attention.head_count"),
        kv_heads=integer("attention.head_count_kv"),
    )
    plan = []
    for position, (source, format, wanted) in enumerate(
        zip(sources, formats, choose(recipe, model, sources, summary.notes), strict=True)
    ):
        target = format if wanted is None else tensor_type(wanted)
        if target is not format and format.name not in _FLOAT_FORMATS:
            if not format.served:
                target = format
                summary.notes.append(f"{source.name} stays {format.name}: not a weight format")
            elif not allow_requantize:
                raise InvalidArgument(
                    f"{source.name} is quantized already ({format.name}); start from F32, F16 or "
                    "BF16, or give allow_requantize (--allow-requantize)",
                    subject=source.name,
                )
        plan.append(_Weights(position, source, format, target))
    return plan


def _chunks(file: Any, weights: _Weights, threads: int) -> Iterator[NDArray[np.uint8]]:
    blocks = file.tensor_bytes(weights.index)
    columns = weights.source.shape[-1]
    row = weights.format.row_bytes(columns)
    step = max(1, CHUNK // columns) * row
    for start in range(0, len(blocks), step):
        part = blocks[start : start + step]
        if weights.target is weights.format:
            yield part
            continue
        values = dequantize(part, weights.format.name, threads=threads)
        try:
            yield quantize(values.reshape(-1, columns), weights.target.name, threads=threads)
        except NumericsError as error:
            raise NumericsError(
                f"{weights.source.name} from row {start // row} on: {error}",
                subject=weights.source.name,
            ) from error
