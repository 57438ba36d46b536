"""The NVIDIA GPUs of this machine: whether they can be used, what they are, their memory."""

from __future__ import annotations

from dataclasses import dataclass

from quantloom import _quantloom, arguments
from quantloom.errors import InvalidArgument

__all__ = [
    "CudaStatus",
    "DeviceInfo",
    "MemoryInfo",
    "device_count",
    "devices",
    "is_available",
    "memory",
    "reset_peak",
    "set_memory_cap",
    "status",
    "synchronize",
    "trim",
]

_MOST_DEVICES = 1024


@dataclass(frozen=True)
class CudaStatus:
    """Whether this build and this machine can use a GPU.

    Attributes:
        available: whether one can be used.
        reason: why not; empty where one can.
        built_with_cuda: whether this build has kernels for GPUs.
        devices: number of GPUs.
        driver_version: highest CUDA version of the driver, such as 13000; 0 without a driver.
        runtime_version: CUDA version of this build; 0 where it has no CUDA part.
    """

    available: bool
    reason: str
    built_with_cuda: bool
    devices: int
    driver_version: int
    runtime_version: int


@dataclass(frozen=True)
class DeviceInfo:
    """A GPU.

    Attributes:
        index: the n of "cuda:n".
        name: as the driver gives it.
        capability: compute capability, such as (9, 0).
        multiprocessors: how many streaming multiprocessors it has.
        total_bytes: its memory.
        l2_bytes: its level-2 cache.
    """

    index: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    total_bytes: int
    l2_bytes: int


@dataclass(frozen=True)
class MemoryInfo:
    """Memory of one GPU, in bytes.

    Attributes:
        in_use: handed out to tensors and models of this process.
        peak: the largest `in_use` since the start or `reset_peak`.
        cached: held for reuse; `trim` gives it back.
        cap: the most that `in_use + cached` may be, or None.
        free: free on the device, whoever asks.
        total: of the device.
        blocks: pieces handed out.
        device_allocations: times the driver was asked for memory.
    """

    in_use: int
    peak: int
    cached: int
    cap: int | None
    free: int
    total: int
    blocks: int
    device_allocations: int


def _name(device: int | str) -> str:
    if isinstance(device, str):
        return arguments.text("device", device)
    if not hasattr(device, "__index__"):
        raise InvalidArgument(
            f"device must be a GPU's number or name, not {type(device).__name__}", subject="device"
        )
    return f"cuda:{arguments.integer('device', device, 0, _MOST_DEVICES - 1)}"


def status() -> CudaStatus:
    """Whether a GPU can be used, and why not."""
    return CudaStatus(**_quantloom.cuda_status())


def is_available() -> bool:
    """Whether a GPU can be used."""
    return status().available


def device_count() -> int:
    """Number of GPUs; 0 where none can be used."""
    return status().devices


def devices() -> list[DeviceInfo]:
    """The GPUs that answer, by their indices; an empty list where none can be used."""
    if not is_available():
        return []
    return [DeviceInfo(**entry) for entry in _quantloom.cuda_devices()]


def memory(device: int | str = 0) -> MemoryInfo:
    """How much memory of a GPU is in use, cached and free.

    Raises:
        InvalidArgument: `device` is no GPU's number or name.
        DeviceError: the GPU cannot be used.
    """
    return MemoryInfo(**_quantloom.cuda_memory(_name(device)))


def set_memory_cap(limit: int | None, device: int | str = 0) -> None:
    """Let this process take at most `limit` bytes of a GPU; None lifts the cap.

    Raises:
        InvalidArgument: `limit` is no integer from 1 on, or `device` no GPU's number or name.
        DeviceError: the GPU cannot be used.
    """
    cap = 0 if limit is None else arguments.integer("limit", limit, 1)
    _quantloom.cuda_set_memory_cap(_name(device), cap)


def trim(device: int | str = 0, *, keep: int = 0) -> None:
    """Give cached memory back to the device until at most `keep` bytes are cached.

    Raises:
        InvalidArgument: `keep` is no integer from 0 on, or `device` no GPU's number or name.
        DeviceError: the GPU cannot be used.
    """
    _quantloom.cuda_trim(_name(device), arguments.integer("keep", keep, 0))


def reset_peak(device: int | str = 0) -> None:
    """Begin `memory().peak` anew.

    Raises:
        InvalidArgument: `device` is no GPU's number or name.
        DeviceError: the GPU cannot be used.
    """
    _quantloom.cuda_reset_peak(_name(device))


def synchronize(device: int | str = 0) -> None:
    """Wait until a GPU has finished everything it was given.

    Raises:
        InvalidArgument: `device` is no number or name of a device.
        DeviceError: the GPU cannot be used, or something that was given to it faulted.
    """
    _quantloom.cuda_synchronize(_name(device))
