"""Arrays of other libraries taken as tensors, and tensors handed to them, by DLPack."""

from __future__ import annotations

import sys
from typing import Any, Protocol

from quantloom import _quantloom
from quantloom.errors import InvalidArgument

_CPU = 1
_CUDA = 2
_PINNED = 3  # host memory
_MANAGED = 13  # by CUDA


class Producer(Protocol):
    """An array of any library that DLPack can hand on."""

    def __dlpack__(self, *, stream: Any = None) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, int]: ...


def place(device: str) -> tuple[int, int]:
    """A device in DLPack's numbers: (1, 0) the CPU, (2, n) GPU n."""
    kind, _, index = device.partition(":")
    return (_CPU, 0) if kind == "cpu" else (_CUDA, int(index))


def taken(source: Producer) -> Any:
    """A C++ tensor on another library's memory, behind the work that it has under way.

    Raises:
        InvalidArgument: no such array, or one of a type or on a device that is unknown here.
    """
    if not (hasattr(source, "__dlpack__") and hasattr(source, "__dlpack_device__")):
        raise InvalidArgument(
            f"source must have __dlpack__, which {type(source).__name__} has not", subject="source"
        )
    device = source.__dlpack_device__()
    try:
        kind, index = (int(number) for number in device)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{device!r} is no DLPack device", subject="source") from None
    if kind not in (_CPU, _PINNED, _CUDA, _MANAGED):
        raise InvalidArgument(
            f"a DLPack array on device type {kind} is neither on the CPU nor on a CUDA GPU",
            subject="source",
        )
    try:
        if kind in (_CPU, _PINNED):
            capsule = _asked(source, None)
        else:
            capsule = _asked_on_gpu(source, f"cuda:{index}")
    except BufferError as error:
        raise InvalidArgument(
            f"{type(source).__name__} has no DLPack form: {error}", subject="source"
        ) from None
    if type(capsule).__name__ != "PyCapsule":
        raise InvalidArgument(
            f"__dlpack__ of {type(source).__name__} gave a {type(capsule).__name__}, no capsule",
            subject="source",
        )
    return _quantloom.Tensor.from_dlpack(capsule)


def _asked(source: Producer, stream: int | None) -> Any:
    try:
        return source.__dlpack__(stream=stream, max_version=(1, 0))  # type: ignore[call-arg]
    except TypeError:
        return source.__dlpack__(stream=stream)


def _asked_on_gpu(source: Producer, device: str) -> Any:
    """Producers go by the current GPU's streams, and PyTorch refuses what lies on another one."""
    stream = _quantloom.compute_stream(device)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.Tensor):
        # It remembers a current GPU of its own where that one has no context.
        with torch.cuda.device(device):
            return _asked(source, stream)
    return _quantloom.with_current(device, lambda: _asked(source, stream))


def given(
    native: Any,
    device: str,
    stream: int | None,
    version: tuple[int, int],
    wanted: tuple[int, int] | None,
    copy: bool | None,
) -> Any:
    """A capsule of a C++ tensor on `device` for a consumer; arguments as of `Tensor.__dlpack__`.

    Raises:
        BufferError: what was asked cannot be had.
    """
    here = place(device)
    copied = bool(copy)
    try:
        asked = here if wanted is None else (int(wanted[0]), int(wanted[1]))
        stream = None if stream is None else int(stream)
        versioned = int(version[0]) >= 1
    except (TypeError, ValueError, IndexError):
        raise BufferError(
            f"dl_device {wanted!r} or max_version {version!r} is no pair of integers, or stream "
            f"{stream!r} none"
        ) from None
    if asked != here:
        if asked != (_CPU, 0):
            raise BufferError(f"a tensor on {device} is not handed out on {wanted}")
        if copy is False:
            raise BufferError(f"a tensor on {device} reaches the CPU only by a copy")
        native, copied = native.to("cpu"), True
    elif copy:
        native = native.clone()
    if here[0] == _CPU and stream not in (None, -1):
        raise BufferError("a tensor on the CPU has no streams")
    if stream is None:
        stream = 1
    if native.is_read_only and not versioned:
        raise BufferError("read-only memory is handed out only to consumers of DLPack 1.0")
    return native.to_dlpack(stream, versioned, copied)
