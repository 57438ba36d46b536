"""A kernel that faults, and fork() after CUDA was used: a clear error, never a hang."""

from __future__ import annotations

from pathlib import Path

import pytest
from children import FORKED, run

from synthetic_model import Synthetic

POISONED = """
import ctypes, gc
import numpy as np
from quantloom import DeviceError, Tensor

class Bad:  # an array at an address that no memory has
    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, stream=None):
        shape = (ctypes.c_int64 * 1)(1 << 20)
        record = (ctypes.c_uint64 * 8)(0x10000, 2, 1 | (2 | 32 << 8 | 1 << 16) << 32)
        record[3] = ctypes.addressof(shape)
        self.keep = shape, record
        new = ctypes.pythonapi.PyCapsule_New
        new.restype = ctypes.py_object
        new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(record), b"dltensor", None)

def refused(call, said="cannot be used any more in this process after a fault"):
    try:
        call()
    except DeviceError as error:
        assert said in str(error) and error.subject, error
        return
    raise SystemExit(f"not refused: {call}")

model = quantloom.load(path, device="cuda")
beside = quantloom.load(path, device="cpu")
expected = beside.generate([1, 2, 3], max_new_tokens=8).tokens
session = model.session()
session.generate([1, 2, 3], max_new_tokens=8)
stream = model.stream([1, 2, 3], max_new_tokens=100, ignore_eos=True)
next(stream)
bad = Bad()
"""

CASES = {
    "idle": """
def fault():
    Tensor.from_dlpack(bad).dequantize("float16")
    quantloom.cuda.synchronize()
refused(fault, "cudaErrorIllegalAddress")
""",
    "found by the stream that runs": """
def fault():
    Tensor.from_dlpack(bad).dequantize("float16")
    for _ in stream:
        pass
refused(fault, "cudaErrorIllegalAddress")
""",
    "while other threads generate": """
said = []
def endless():
    with model.session() as mine:
        try:
            while True:
                mine.generate([4, 5], max_new_tokens=50, ignore_eos=True)
        except DeviceError as error:
            said.append(str(error))
threads = [threading.Thread(target=endless) for _ in range(3)]
for thread in threads:
    thread.start()
time.sleep(0.2)
def fault():
    Tensor.from_dlpack(bad).dequantize("float16")
    quantloom.cuda.synchronize()
refused(fault, "")
for thread in threads:
    thread.join(20)
assert not any(thread.is_alive() for thread in threads)
assert len(said) == 3, said
""",
}

AFTERWARDS = """
refused(lambda: session.generate([1, 2, 3]))
refused(lambda: model.generate([1, 2, 3]))
refused(lambda: model.logits([1, 2, 3]))
refused(lambda: model.session())
refused(lambda: quantloom.load(path, device="cuda"))
refused(quantloom.cuda.memory)
try:
    for piece in stream:
        pass
except DeviceError:
    pass
stream.close()
assert beside.generate([1, 2, 3], max_new_tokens=8).tokens == expected
session.close()
model.close()
gc.collect()
print("refused", flush=True)
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Synthetic(
        layers=2, embedding=256, heads=4, head_size=64, feed_forward=768, context=2048,
        format="Q8_0",
    )  # fmt: skip
    return recipe.write(tmp_path_factory.mktemp("device"))


@pytest.mark.parametrize("case", CASES)
def test_a_fault_poisons_every_model_on_the_device(case: str, path: Path) -> None:
    ended = run(POISONED + CASES[case] + AFTERWARDS, path, limit=90)
    # The emulator says where a kernel faulted.
    lines = ended.err.splitlines(keepends=True)
    err = "".join(line for line in lines if not line.startswith("quantloom emulator: "))
    assert (ended.code, ended.out, err) == (0, "refused\n", "")


FORKS = (
    FORKED
    + """
import gc

def refused(call):
    try:
        call()
    except quantloom.DeviceError as error:
        assert "forked" in str(error) and "spawn" in str(error), error
        return
    raise AssertionError("not refused")

model = quantloom.load(path, device="cuda")
expected = model.generate([1, 2, 3], max_new_tokens=20).tokens
session = model.session()
session.generate([1, 2, 3], max_new_tokens=20)
stream = model.stream([1, 2, 3], max_new_tokens=200, ignore_eos=True)
next(stream)
"""
)

IN_CHILD = """
def in_child():
    refused(lambda: model.generate([1, 2, 3]))
    refused(lambda: model.session())
    refused(lambda: session.generate([1, 2, 3]))
    refused(lambda: next(stream))
    refused(lambda: quantloom.load(path, device="cuda"))
    assert not quantloom.cuda.is_available() and quantloom.cuda.devices() == []
    assert "forked" in quantloom.cuda.status().reason
    with quantloom.load(path, device="auto", verbose=False) as other:
        assert len(other.generate([1, 2, 3], max_new_tokens=5, ignore_eos=True).tokens) == 5
    stream.close()
    session.close()
    model.close()
    gc.collect()
    return "refused"
"""

FORK_CASES = {
    "idle": """
for _ in range(3):
    said = child_of(in_child)
    assert said == "refused", said
""",
    "while other threads generate and load": """
stop = threading.Event()
def generate():
    with model.session() as mine:
        while not stop.is_set():
            mine.generate([4, 5], max_new_tokens=50, ignore_eos=True)
def load():
    while not stop.is_set():
        quantloom.load(path, device="cuda").close()
threads = [threading.Thread(target=work) for work in (generate, generate, load)]
for thread in threads:
    thread.start()
for _ in range(5):
    time.sleep(0.03)
    said = child_of(in_child)
    assert said == "refused", said
stop.set()
for thread in threads:
    thread.join()
""",
}


@pytest.mark.parametrize("case", FORK_CASES)
def test_fork_after_cuda_was_used(case: str, path: Path) -> None:
    after = """
assert model.generate([1, 2, 3], max_new_tokens=20).tokens == expected
assert len(list(stream)) > 0
print("goes on", flush=True)
"""
    ended = run(FORKS + IN_CHILD + FORK_CASES[case] + after, path, limit=120)
    assert (ended.code, ended.out, ended.err) == (0, "goes on\n", "")


def test_a_fork_before_cuda_was_used(path: Path) -> None:
    code = FORKS.split("model = ")[0] + (
        """
def tokens():
    with quantloom.load(path, device="cuda") as model:
        return model.generate([1, 2, 3], max_new_tokens=20).tokens

first = child_of(tokens)
assert first == tokens(), first
print("goes on", flush=True)
"""
    )
    ended = run(code, path, limit=120)
    assert (ended.code, ended.out, ended.err) == (0, "goes on\n", "")
