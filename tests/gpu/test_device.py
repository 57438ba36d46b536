"""Tensors on a GPU: copies, exchange with other libraries, the memory pool, faults."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from quantloom import Tensor, _quantloom, cuda
from quantloom.errors import DeviceError, InvalidArgument, OutOfMemory

TYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64"]


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> object:
    gc.collect()
    before = cuda.memory().in_use
    yield
    gc.collect()
    assert cuda.memory().in_use == before


@pytest.mark.parametrize("dtype", TYPES)
def test_there_and_back(dtype: str) -> None:
    array = np.arange(60).reshape(3, 4, 5).astype(dtype)
    tensor = Tensor(array, device="cuda")
    assert (tensor.device, tensor.shape, tensor.dtype) == ("cuda:0", (3, 4, 5), dtype)
    np.testing.assert_array_equal(tensor.numpy(), array)
    np.testing.assert_array_equal(tensor[1:].reshape(-1, 5)[2].numpy(), array[1:].reshape(-1, 5)[2])
    np.testing.assert_array_equal(tensor[::-2].numpy(), array[::-2])
    np.testing.assert_array_equal(Tensor(array.T).to("cuda:0").numpy(), array.T)
    assert tensor[1:].device == tensor.reshape(-1).device == "cuda:0"
    assert tensor.to("cuda:0")._native.data == tensor._native.data


def test_empty_and_scalar() -> None:
    assert Tensor(np.zeros((0, 4), np.float32), device="cuda").numpy().shape == (0, 4)
    assert Tensor(np.float64(2.5), device="cuda").numpy() == 2.5


def test_devices() -> None:
    found = cuda.devices()
    assert len(found) == cuda.device_count() >= 1
    assert found[0].capability >= (8, 0)  # what the kernels are built for
    assert found[0].total_bytes > 1 << 30
    with pytest.raises(DeviceError, match=r"cuda:99 is not there: this machine has"):
        Tensor.empty(3, device="cuda:99")


def test_torch_shares_memory_both_ways() -> None:
    torch = pytest.importorskip("torch")
    source = torch.arange(60, dtype=torch.float32, device="cuda").reshape(3, 4, 5)
    tensor = Tensor(source)
    assert tensor._native.data == source.data_ptr()
    np.testing.assert_array_equal(tensor.numpy(), source.cpu().numpy())
    transposed = Tensor(source.permute(2, 0, 1)[1:])
    assert not transposed.is_contiguous
    np.testing.assert_array_equal(transposed.numpy(), source.permute(2, 0, 1)[1:].cpu().numpy())
    back = torch.from_dlpack(tensor[1:])
    assert back.data_ptr() == source[1:].data_ptr()
    back.add_(1)
    torch.cuda.synchronize()  # nothing orders torch's stream before ours once it has the memory
    np.testing.assert_array_equal(tensor[1:].numpy(), source[1:].cpu().numpy())
    half = Tensor(source.to(torch.bfloat16))
    assert half.dtype == "bfloat16"
    assert torch.equal(torch.from_dlpack(half), source.to(torch.bfloat16))


def test_the_order_of_streams_is_kept() -> None:
    torch = pytest.importorskip("torch")
    side = torch.cuda.Stream()
    for trial in range(5):
        value = torch.zeros(1 << 20, device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(side):
            torch.cuda._sleep(20_000_000)  # about 10 ms
            value.fill_(trial + 1)
            tensor = Tensor(value)
        copied = tensor.clone()
        assert copied.numpy().min() == trial + 1
        # and back: what quantloom still writes is waited for by the stream that takes it
        big = Tensor.empty(1 << 28, device="cuda").clone()
        last = copied.clone()
        with torch.cuda.stream(side):
            smallest = torch.from_dlpack(last).min().item()
        assert smallest == trial + 1
        del big


def test_cupy_and_the_cuda_array_interface() -> None:
    cupy = pytest.importorskip("cupy")
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    tensor = Tensor(array, device="cuda")
    interface = tensor.__cuda_array_interface__
    assert interface["version"] == 3
    assert interface["strides"] is None
    assert interface["stream"] not in (None, 0)
    view = cupy.asarray(tensor)
    assert view.data.ptr == tensor._native.data
    np.testing.assert_array_equal(cupy.asnumpy(view), array)
    np.testing.assert_array_equal(cupy.asnumpy(cupy.asarray(tensor[::2])), array[::2])
    np.testing.assert_array_equal(cupy.asnumpy(cupy.from_dlpack(tensor)), array)
    np.testing.assert_array_equal(Tensor(view * 2).numpy(), array * 2)
    with pytest.raises(AttributeError):
        _ = Tensor(array).__cuda_array_interface__


def test_jax_takes_and_gives() -> None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax = pytest.importorskip("jax")
    tensor = Tensor(np.arange(6, dtype=np.float32), device="cuda")
    taken = jax.dlpack.from_dlpack(tensor)
    np.testing.assert_array_equal(np.asarray(taken), tensor.numpy())
    given = Tensor(jax.numpy.arange(6, dtype="float32") * 3)
    np.testing.assert_array_equal(given.numpy(), np.arange(6) * 3)
    del taken, given


def test_dlpack_to_the_cpu_is_a_copy_that_was_asked_for() -> None:
    tensor = Tensor(np.arange(6, dtype=np.float32), device="cuda")
    assert tensor.__dlpack_device__() == (2, 0)
    np.testing.assert_array_equal(np.from_dlpack(tensor, device="cpu"), np.arange(6))
    with pytest.raises(BufferError, match="only by a copy"):
        tensor.__dlpack__(dl_device=(1, 0), copy=False)
    with pytest.raises(InvalidArgument, match="stream 0"):
        tensor.__dlpack__(stream=0)
    with pytest.raises(TypeError):
        np.asarray(tensor)


@pytest.mark.measures_hardware
def test_more_than_4_gib() -> None:
    rows = 5 << 8
    tensor = Tensor.empty((rows, 1 << 20), "float32", "cuda")
    assert tensor.nbytes == 5 << 30
    last = np.arange(1 << 20, dtype=np.float32)
    Tensor(last, device="cuda").dequantize("float32", out=tensor[-1])
    np.testing.assert_array_equal(tensor[-1].numpy(), last)
    np.testing.assert_array_equal(tensor.clone()[rows - 1].numpy(), last)
    cuda.trim()


def test_memory_statistics_cap_and_trim() -> None:
    cuda.trim()
    cuda.reset_peak()
    start = cuda.memory()
    tensor = Tensor.empty(10 << 20, "uint8", "cuda")
    held = cuda.memory()
    assert 10 << 20 <= held.in_use - start.in_use <= (10 << 20) * 1.02
    del tensor
    after = cuda.memory()
    assert after.in_use == start.in_use
    assert after.peak == held.in_use
    assert after.cached - start.cached == held.in_use - start.in_use
    again = Tensor.empty(10 << 20, "uint8", "cuda")
    assert cuda.memory().device_allocations == held.device_allocations
    del again
    cuda.trim()
    assert cuda.memory().cached == 0
    cuda.set_memory_cap(cuda.memory().in_use + (20 << 20))
    try:
        wanted = r"67108864 bytes asked, 20971520 free .* under a cap"
        with pytest.raises(OutOfMemory, match=wanted):
            Tensor.empty(64 << 20, "uint8", "cuda")
        Tensor.empty(16 << 20, "uint8", "cuda")
    finally:
        cuda.set_memory_cap(None)


def test_out_of_memory_says_what_was_asked_and_what_is_free() -> None:
    before = cuda.memory()
    with pytest.raises(OutOfMemory) as caught:
        Tensor.empty(1 << 42, "uint8", "cuda")
    assert f"{1 << 42} bytes asked" in str(caught.value)
    assert f"free of {before.total}" in str(caught.value)
    assert isinstance(caught.value, MemoryError)
    assert cuda.memory().in_use == before.in_use
    Tensor.empty(1 << 20, "uint8", "cuda")


def test_every_failing_call_is_a_typed_error_and_leaves_nothing() -> None:
    array = np.arange(1000, dtype=np.float32)

    def work() -> np.ndarray:
        tensor = Tensor(array[::2], device="cuda")
        return np.asarray(tensor.dequantize("float16").to("cpu").numpy())

    expected = work()
    for point in ("cuda_call", "device_allocation", "host_allocation"):
        cuda.trim()
        _quantloom.arm_fault(point, 0)
        work()
        passed = _quantloom.fault_points_passed(point)
        assert passed >= 1
        raised = 0
        for n in range(1, passed + 1):
            cuda.trim()
            before = cuda.memory().in_use
            _quantloom.arm_fault(point, n)
            try:  # what fails while memory goes back costs nobody anything
                np.testing.assert_array_equal(work(), expected)
            except (DeviceError, OutOfMemory):
                raised += 1
            finally:
                _quantloom.arm_fault(point, 0)
            gc.collect()
            assert cuda.memory().in_use == before
            np.testing.assert_array_equal(work(), expected)
        assert raised >= 1


def test_a_context_that_cannot_be_had_is_a_typed_error() -> None:
    done = run(
        "import numpy as np, quantloom\n"
        "from quantloom import _quantloom\n"
        "_quantloom.arm_fault('cuda_call', 1)\n"
        "try:\n"
        "    quantloom.Tensor(np.ones(3), device='cuda')\n"
        "except quantloom.DeviceError as error:\n"
        "    print(error)\n"
        "print(quantloom.Tensor(np.ones(3), device='cuda').numpy().sum())\n"
    )
    assert done.returncode == 0, done.stderr
    failed, total = done.stdout.splitlines()
    assert failed.startswith("cuda:0: cuDevicePrimaryCtxRetain failed: ")
    assert total == "3.0"


def test_many_threads() -> None:
    failed = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(30):
            array = random.standard_normal(int(random.integers(1, 100_000))).astype(np.float32)
            if not np.array_equal(Tensor(array, device="cuda").clone().numpy(), array):
                failed.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_fork_after_cuda_is_refused() -> None:
    done = run(
        "import os, numpy as np, quantloom\n"
        "from quantloom import Tensor\n"
        "held = Tensor(np.zeros(4), device='cuda')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n"
        "        Tensor(np.zeros(4), device='cuda')\n"
        "    except quantloom.DeviceError as error:\n"
        "        del held\n"
        "        os._exit(7 if 'forked' in str(error) else 1)\n"
        "    os._exit(2)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "print(held.numpy().sum())\n"
    )
    assert (done.returncode, done.stdout) == (0, "0.0\n"), done.stderr


FAULT = """
import ctypes, numpy as np, quantloom
from quantloom import Tensor, cuda
GPU = 0
on = f'cuda:{GPU}'
class Bad:  # an array at an address that no memory has
    def __dlpack_device__(self): return (2, GPU)
    def __dlpack__(self, stream=None):
        shape = (ctypes.c_int64 * 1)(1 << 20)
        record = (ctypes.c_uint64 * 8)(0x10000, 2 | GPU << 32, 1 | (2 | 32 << 8 | 1 << 16) << 32)
        record[3] = ctypes.addressof(shape)
        self.keep = shape, record
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(record), b'dltensor', None)
good = Tensor(np.zeros(4, np.float32), device=on)
bad = Bad()
try:
    there = Tensor.from_dlpack(bad)
    there.dequantize('float16')
    cuda.synchronize(on)
except quantloom.DeviceError as error:
    print('first:', error)
for action in (
    good.numpy, good.clone, lambda: Tensor.empty(3, device=on), lambda: cuda.synchronize(on)
):
    try:
        action()
        print('no error')
    except quantloom.DeviceError as error:
        assert 'after a fault' in str(error), error
        print('refused')
print(Tensor(np.ones(3)).numpy().sum())
"""


def test_a_fault_poisons_the_device_and_nothing_hangs() -> None:
    done = run(FAULT)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("first: cuda:0: ")
    assert "cudaErrorIllegalAddress" in lines[0]
    assert "QUANTLOOM_DEBUG=1 names it" in lines[0]
    assert lines[1:] == ["refused"] * 4 + ["3.0"]


def test_debug_names_the_kernel_that_faulted() -> None:
    done = run(FAULT, QUANTLOOM_DEBUG="1")
    assert done.returncode == 0, done.stderr
    assert "kernel dequantize (format=0, elements=1048576) failed" in done.stdout
    assert "quantloom: dequantize" in done.stderr


def test_no_visible_device_is_an_error_that_says_why() -> None:
    done = run(
        "from quantloom import Tensor, cuda\n"
        "assert not cuda.is_available()\n"
        "try:\n"
        "    Tensor.empty(3, device='cuda')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n",
        CUDA_VISIBLE_DEVICES="",
    )
    assert done.stdout.startswith("DeviceError cuda:0 cannot be used: "), done.stderr
