"""`cuda:1`: what works on the first GPU works on the second, with the same bits."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import quantloom
from gpu.conftest import emulated
from gpu.test_device import FAULT, run
from model.test_logits import tokens_for
from operations.products import QUANTIZED, activations, matrix
from quantloom import Tensor, _quantloom, cuda, matmul
from quantloom.errors import InvalidArgument, QuantloomError

pytestmark = pytest.mark.skipif(cuda.device_count() < 2, reason="one GPU: cuda:1 is not there")

GPUS = ("cuda:0", "cuda:1")
EMULATED = emulated()
DRIVER = _quantloom.__file__ if EMULATED else "libcuda.so.1"
SAMPLED = {"temperature": 0.9, "top_k": 60, "top_p": 0.95, "repetition_penalty": 1.1, "seed": 7}


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    gc.collect()
    before = [cuda.memory(gpu).in_use for gpu in GPUS]
    yield
    gc.collect()
    assert [cuda.memory(gpu).in_use for gpu in GPUS] == before


def test_a_gpu_that_does_not_answer_hides_no_other() -> None:
    _quantloom.arm_fault("cuda_call", 2)
    assert [gpu.index for gpu in cuda.devices()] == [0, *range(2, cuda.device_count())]
    assert [gpu.index for gpu in cuda.devices()] == list(range(cuda.device_count()))


def test_tensors_from_one_gpu_to_the_other() -> None:
    array = np.arange(1 << 20, dtype=np.float32).reshape(1 << 10, 1 << 10)
    in_use = [cuda.memory(gpu).in_use for gpu in GPUS]
    first = Tensor(array, device="cuda:0")
    second = first.to("cuda:1")
    assert [cuda.memory(gpu).in_use - was for gpu, was in zip(GPUS, in_use, strict=True)] == [
        array.nbytes
    ] * 2
    assert (first.device, second.device) == GPUS
    assert second.__dlpack_device__() == (2, 1)
    np.testing.assert_array_equal(second.numpy(), array)
    np.testing.assert_array_equal(first[::-3].to("cuda:1").numpy(), array[::-3])
    np.testing.assert_array_equal(second[5:9].to("cuda:0").numpy(), array[5:9])
    np.testing.assert_array_equal(second.to("cpu").numpy(), array)


@pytest.mark.parametrize("format", QUANTIZED)
def test_products_have_the_same_bits(format: str) -> None:
    w, _ = matrix(format, 130, 1280)
    x = activations(200, 1280)
    for tokens in (1, 7, 16, 200):
        results = [
            matmul(Tensor(x[:tokens], device=gpu), w.to(gpu)).numpy().tobytes() for gpu in GPUS
        ]
        assert results[0] == results[1], tokens
    assert w.to("cuda:1").dequantize().numpy().tobytes() == w.dequantize().numpy().tobytes()


def test_operands_on_two_gpus_are_refused() -> None:
    w, _ = matrix("Q4_0", 32, 256)
    x = Tensor(activations(3, 256), device="cuda:0")
    with pytest.raises(QuantloomError, match=r"cuda:0.*cuda:1|cuda:1.*cuda:0"):
        matmul(x, w.to("cuda:1"))


def test_a_fault_names_the_gpu_that_it_was_on() -> None:
    done = run(FAULT.replace("GPU = 0", "GPU = 1"))
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("first: cuda:1: ")
    assert "cudaErrorIllegalAddress" in first
    assert rest == ["refused"] * 4 + ["3.0"]


def test_models_have_the_same_bits_on_both_at_once(path: Path) -> None:
    prompt = tokens_for(100)
    greedily, sampled = (20, 10) if EMULATED else (150, 80)

    def answers(gpu: str) -> tuple[bytes, list[int], list[int]]:
        with quantloom.load(path, device=gpu) as model:
            assert model.device == gpu
            assert set(model.explain().totals) == {gpu}
            logits = model.logits(prompt).tobytes()
            greedy = model.generate(prompt, max_new_tokens=greedily, ignore_eos=True).tokens
            return logits, greedy, model.generate(prompt, max_new_tokens=sampled, **SAMPLED).tokens

    alone = answers("cuda:0")
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(answers, ("cuda:1", "cuda:0", "cuda:1", "cuda:0")):
            assert found == alone


@pytest.mark.parametrize("layers", [1, 2])
def test_a_model_split_between_the_second_gpu_and_the_cpu(path: Path, layers: int) -> None:
    prompt = tokens_for(30)
    rows = []
    for gpu in GPUS:
        with quantloom.load(path, device=gpu, gpu_layers=layers) as model:
            assert gpu in model.explain().totals
            rows.append(model.logits(prompt).tobytes())
    assert rows[0] == rows[1]


def test_a_producer_is_asked_while_its_gpu_is_current() -> None:
    driver = ctypes.CDLL(DRIVER)

    def current() -> int | None:
        context = ctypes.c_void_p()
        assert driver.cuCtxGetCurrent(ctypes.byref(context)) == 0
        return context.value

    class Producer:
        def __init__(self, tensor: Tensor, fails: bool = False) -> None:
            self.tensor, self.fails = tensor, fails

        def __dlpack_device__(self) -> tuple[int, int]:
            return self.tensor.__dlpack_device__()

        def __dlpack__(self, *, stream: int | None = None) -> object:
            self.seen = current()
            if self.fails:
                raise BufferError("not today")
            return self.tensor.__dlpack__(stream=stream)

    before = current()
    producers = [Producer(Tensor(np.arange(4.0), device=gpu)) for gpu in GPUS]
    for producer in producers:
        assert Tensor(producer).numpy().sum() == 6
    assert None not in (producers[0].seen, producers[1].seen)
    assert producers[0].seen != producers[1].seen
    with pytest.raises(InvalidArgument, match="Producer has no DLPack form: not today"):
        Tensor(Producer(producers[1].tensor, fails=True))
    assert current() == before


def test_torch_on_the_second_gpu() -> None:
    torch = pytest.importorskip("torch")
    source = torch.arange(60, dtype=torch.float32, device="cuda:1").reshape(3, 4, 5)
    tensor = Tensor(source)
    assert (tensor.device, tensor._native.data) == ("cuda:1", source.data_ptr())
    torch.from_dlpack(tensor).add_(1)
    torch.cuda.synchronize("cuda:1")  # nothing orders torch's stream before ours from here on
    np.testing.assert_array_equal(tensor.numpy(), source.cpu().numpy())
    assert torch.cuda.current_device() == 0


def test_the_first_gpu_is_left_alone(path: Path) -> None:
    """No context on `cuda:0`, which takes hundreds of MB; the thread's GPU is as before."""
    program = """
import ctypes, sys
import numpy as np
import quantloom
from quantloom import Tensor
driver = ctypes.CDLL(sys.argv[2])
def active(gpu):
    flags, on = ctypes.c_uint(), ctypes.c_int()
    assert driver.cuDevicePrimaryCtxGetState(gpu, ctypes.byref(flags), ctypes.byref(on)) == 0
    return on.value
def step(name):
    print(name, active(0), active(1), flush=True)
assert quantloom.cuda.device_count() > 1
step("import")
tensor = Tensor(np.ones((4, 4), np.float32), device="cuda:1")
step("tensor")
assert tensor[::-1].clone().numpy().sum() == 16
quantloom.cuda.memory(1), quantloom.cuda.trim(1), quantloom.cuda.synchronize(1)
step("memory")
with quantloom.load(sys.argv[1], device="cuda:1") as model:
    step("load")
    model.generate([1, 2, 3], max_new_tokens=20, ignore_eos=True)
    model.logits(list(range(3, 60)))
    step("generate")
del tensor, model
step("end")
context = ctypes.c_void_p()
assert driver.cuCtxGetCurrent(ctypes.byref(context)) == 0
print("current", context.value)
"""
    done = run(program, str(path), DRIVER)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [
        "import", "tensor", "memory", "load", "generate", "end", "current",
    ]  # fmt: skip
    assert [line[1] for line in lines[:-1]] == ["0"] * 6, done.stdout
    assert lines[-1] == ["current", "None"]
