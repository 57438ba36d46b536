"""What this machine reaches at most: the rate of reading memory and of plain matrix products."""

from __future__ import annotations

import ctypes
import glob
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from quantloom import _quantloom
from quantloom.errors import DeviceError
from quantloom.tensor import Tensor

__all__ = ["Cublas", "Recording", "product_seconds", "read_bandwidth"]

_GPU_BYTES = 4 << 30  # 70 times the level-2 cache of an H200
_CPU_BYTES = 512 << 20

_BFLOAT16 = 14  # cudaDataType_t
_COMPUTE_FLOAT = 68  # cublasComputeType_t
_TRANSPOSED, _PLAIN = 1, 0
_THREAD_LOCAL = 1  # CUstreamCaptureMode

_WORKSPACE_BYTES = 32 << 20  # what NVIDIA recommends for compute capability 9.0
_LEAST_SECONDS = 2e-3  # the launch of a graph takes 10 us


def read_bandwidth(device: str, repeat: int = 9) -> float:
    """Bytes per second at which the device's memory is read, by a kernel that does nothing else.

    Raises:
        OutOfMemory: no room for what is read, 4 GiB of a GPU or 512 MiB of host memory.
        DeviceError: the GPU cannot be used.
    """
    on_gpu = device != "cpu"
    tensor = Tensor.empty((_GPU_BYTES if on_gpu else _CPU_BYTES,), "uint8", device)
    if not on_gpu:
        tensor.numpy().fill(1)  # pages that nobody has written are one page of zeros
    total = Tensor(np.zeros(1, np.uint32), device=device)

    def read() -> None:
        _quantloom.read_once(tensor._native, total._native)

    return tensor.nbytes / _seconds(device, read, repeat)


def _seconds(device: str, work: Callable[[], None], repeat: int, at_once: int = 1) -> float:
    """Least seconds of one `work()`, of which `at_once` are given before the wait."""
    times = []
    for turn in range(repeat + 1):
        if device != "cpu":
            _quantloom.cuda_synchronize(device)
        start = time.perf_counter()
        for _ in range(at_once):
            work()
        if device != "cpu":
            _quantloom.cuda_synchronize(device)
        if turn > 0:
            times.append((time.perf_counter() - start) / at_once)
    return min(times)  # a ceiling is what was reached


def _seconds_of_launch(device: str, start: Callable[[], None]) -> float:
    """Least seconds of a graph's launch, of so many at once that the launching does not count."""
    once = _seconds(device, start, 1)
    return _seconds(device, start, 5, at_once=max(1, round(_LEAST_SECONDS / once)))


def product_seconds(
    device: str, shapes: Iterable[tuple[int, int]], tokens: int
) -> tuple[dict[tuple[int, int], float], str]:
    """Seconds of a plain product of `tokens` rows with a matrix of each shape, and by what.

    On a GPU bfloat16 through cuBLAS, replayed as a CUDA graph so that no launch is waited for; on
    the CPU float32 through NumPy's BLAS.

    Raises:
        DeviceError: the GPU has no cuBLAS beside it, or a product cannot be recorded.
    """
    if device == "cpu":
        rate = _numpy_rate()
        return {(r, c): 2 * tokens * r * c / rate for r, c in set(shapes)}, "float32 NumPy"
    with Cublas(device) as cublas:
        return {shape: cublas.seconds(shape, tokens) for shape in set(shapes)}, "bfloat16 cuBLAS"


def _numpy_rate(size: int = 1024) -> float:
    """Operations per second of a float32 product that is large enough for all cores."""
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((size, size), np.float32) for _ in range(2))
    out = np.empty((size, size), np.float32)

    def multiply() -> None:
        np.matmul(a, b, out=out)

    return 2 * size**3 / _seconds("cpu", multiply, 5)


def _check(call: str, status: int) -> None:
    if status != 0:
        raise DeviceError(f"{call} failed with status {status}")


class Recording:
    """Calls on one stream, recorded as a CUDA graph that starts them without Python between them.

    Args:
        driver: libcuda, or what has its functions.
        stream: not the legacy one, which cannot record.
        calls: made once and in turn, all on that stream; each must have run before, because a
            kernel cannot be loaded meanwhile.

    Raises:
        DeviceError: the driver refuses one of the steps.
    """

    def __init__(
        self, driver: Any, stream: ctypes.c_void_p, calls: Iterable[Callable[[], None]]
    ) -> None:
        self._driver, self._stream = driver, stream
        self._executable = ctypes.c_void_p()
        graph = ctypes.c_void_p()
        _check("cuStreamBeginCapture", driver.cuStreamBeginCapture_v2(stream, _THREAD_LOCAL))
        try:
            try:
                for call in calls:
                    call()
            finally:  # a stream left recording runs nothing more
                status = driver.cuStreamEndCapture(stream, ctypes.byref(graph))
            _check("cuStreamEndCapture", status)
            flags = ctypes.c_ulonglong(0)
            status = driver.cuGraphInstantiateWithFlags(
                ctypes.byref(self._executable), graph, flags
            )
            _check("cuGraphInstantiate", status)
        finally:
            if graph:
                driver.cuGraphDestroy(graph)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *error: object) -> None:
        self._driver.cuGraphExecDestroy(self._executable)

    def start(self) -> None:
        """Starts all the calls; they run after what the stream had before."""
        _check("cuGraphLaunch", self._driver.cuGraphLaunch(self._executable, self._stream))


class Cublas:
    """The cuBLAS library of this machine, for timing; nothing else here needs it.

    It is looked for among the packages of this Python, under CUDA_HOME and where the loader looks.

    Raises:
        DeviceError: it is not there, or fails.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._library = self._open()
        self._handle = ctypes.c_void_p()
        # A first tensor makes the device current for this thread. cuBLAS uses it while it records,
        # when it could not allocate.
        self._workspace = Tensor.empty((_WORKSPACE_BYTES,), "uint8", device)
        _check("cublasCreate", self._library.cublasCreate_v2(ctypes.byref(self._handle)))
        self._stream = ctypes.c_void_p(int(_quantloom.compute_stream(device)))
        _check("cublasSetStream", self._library.cublasSetStream_v2(self._handle, self._stream))
        place = ctypes.c_void_p(int(self._workspace._native.data))
        size = ctypes.c_size_t(_WORKSPACE_BYTES)
        _check("cublasSetWorkspace", self._library.cublasSetWorkspace_v2(self._handle, place, size))

    def __enter__(self) -> Cublas:
        return self

    def __exit__(self, *error: object) -> None:
        self._library.cublasDestroy_v2(self._handle)

    def seconds(self, shape: tuple[int, int], tokens: int) -> float:
        """Least seconds of a product() among others, in a replayed CUDA graph."""
        product = self.product(shape, tokens)
        product()
        count = max(8, self._copies(shape))
        try:
            driver = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise DeviceError(f"a product cannot be recorded: {error}") from error
        with Recording(driver, self._stream, [product] * count) as recording:
            return _seconds_of_launch(self._device, recording.start) / count

    def product(self, shape: tuple[int, int], tokens: int) -> Callable[[], None]:
        """Starts x [tokens, columns] times the transpose of w [rows, columns], all in bfloat16."""
        rows, columns = shape
        random = np.random.default_rng(0)
        x = self._random(random, (tokens, columns))
        out = Tensor.empty((tokens, rows), "bfloat16", self._device)
        count = self._copies(shape)
        first = self._random(random, shape)
        weights = [first] + [first.clone() for _ in range(count - 1)]
        turn = iter(range(1 << 30))
        return lambda: self._multiply(weights[next(turn) % count], x, out)

    @staticmethod
    def _copies(shape: tuple[int, int]) -> int:
        """Enough matrices to fill the cache twice: weights come from memory, as a model's do."""
        return max(1, -(-(128 << 20) // (2 * shape[0] * shape[1])))

    def _random(self, random: np.random.Generator, shape: tuple[int, int]) -> Tensor:
        values = random.standard_normal((min(shape[0], 256), shape[1]), np.float32)
        whole = np.tile(values, (-(-shape[0] // len(values)), 1))[: shape[0]]
        return Tensor(whole, device=self._device).dequantize("bfloat16")

    def _multiply(self, w: Tensor, x: Tensor, out: Tensor) -> None:
        rows, columns = w.shape
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        pointer = [ctypes.c_void_p(int(t._native.data)) for t in (w, x, out)]
        _check(
            "cublasGemmEx",
            self._library.cublasGemmEx(
                self._handle, _TRANSPOSED, _PLAIN, rows, x.shape[0], columns,
                ctypes.byref(one), pointer[0], _BFLOAT16, columns,
                pointer[1], _BFLOAT16, columns,
                ctypes.byref(zero), pointer[2], _BFLOAT16, rows,
                _COMPUTE_FLOAT, -1,
            ),
        )  # fmt: skip

    @staticmethod
    def _open() -> Any:
        places = [f"{folder}/nvidia/*/lib/libcublas.so.13" for folder in sys.path if folder]
        for variable in ("CUDA_HOME", "CUDA_PATH"):
            if variable in os.environ:
                places.append(f"{os.environ[variable]}/lib64/libcublas.so.13")
        places.append("/usr/local/cuda/lib64/libcublas.so.13")
        names = [path for place in places for path in sorted(glob.glob(place))]
        for name in [*names, "libcublas.so.13"]:
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
        raise DeviceError("cuBLAS 13 is not on this machine: there is no product to compare with")
