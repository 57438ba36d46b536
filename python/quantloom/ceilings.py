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

__all__ = ["Cublas", "product_seconds", "read_bandwidth"]

_GPU_BYTES = 4 << 30  # 70 times the level-2 cache of an H200
_CPU_BYTES = 512 << 20

_BFLOAT16 = 14  # cudaDataType_t
_COMPUTE_FLOAT = 68  # cublasComputeType_t
_TRANSPOSED, _PLAIN = 1, 0


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


def product_seconds(
    device: str, shapes: Iterable[tuple[int, int]], tokens: int
) -> tuple[dict[tuple[int, int], float], str]:
    """Seconds of a plain product of `tokens` rows with a matrix of each shape, and by what.

    On a GPU bfloat16 through cuBLAS, on the CPU float32 through NumPy's BLAS.

    Raises:
        DeviceError: the GPU has no cuBLAS beside it.
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
        # A first tensor makes the device current for this thread.
        Tensor.empty((1,), device=device)
        self._check("cublasCreate", self._library.cublasCreate_v2(ctypes.byref(self._handle)))
        stream = ctypes.c_void_p(int(_quantloom.compute_stream(device)))
        self._check("cublasSetStream", self._library.cublasSetStream_v2(self._handle, stream))

    def __enter__(self) -> Cublas:
        return self

    def __exit__(self, *error: object) -> None:
        self._library.cublasDestroy_v2(self._handle)

    def seconds(self, shape: tuple[int, int], tokens: int) -> float:
        """Least seconds of a product()."""
        return _seconds(self._device, self.product(shape, tokens), 5, at_once=8)

    def product(self, shape: tuple[int, int], tokens: int) -> Callable[[], None]:
        """Starts x [tokens, columns] times the transpose of w [rows, columns], all in bfloat16."""
        rows, columns = shape
        random = np.random.default_rng(0)
        x = self._random(random, (tokens, columns))
        out = Tensor.empty((tokens, rows), "bfloat16", self._device)
        # Weights come from memory, as a model's do: enough matrices to fill the cache twice.
        count = max(1, -(-(128 << 20) // (2 * rows * columns)))
        first = self._random(random, shape)
        weights = [first] + [first.clone() for _ in range(count - 1)]
        turn = iter(range(1 << 30))
        return lambda: self._multiply(weights[next(turn) % count], x, out)

    def _random(self, random: np.random.Generator, shape: tuple[int, int]) -> Tensor:
        values = random.standard_normal((min(shape[0], 256), shape[1]), np.float32)
        whole = np.tile(values, (-(-shape[0] // len(values)), 1))[: shape[0]]
        return Tensor(whole, device=self._device).dequantize("bfloat16")

    def _multiply(self, w: Tensor, x: Tensor, out: Tensor) -> None:
        rows, columns = w.shape
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        pointer = [ctypes.c_void_p(int(t._native.data)) for t in (w, x, out)]
        self._check(
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
    def _check(call: str, status: int) -> None:
        if status != 0:
            raise DeviceError(f"{call} failed with status {status}")

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
