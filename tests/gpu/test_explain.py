"""What explain() and "auto" say of a GPU is so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import quantloom
from quantloom import _quantloom, cuda
from synthetic_model import Synthetic

LAYERS = 4


def launches_of_a_step(model: quantloom.Model) -> int:
    """Of a second token beyond those of the first, whose kernels run one by one."""
    made = []
    for tokens in (1, 2):
        with model.session() as session:
            before = _quantloom.cuda_counters()["launches"]
            session.generate([1, 2, 3], max_new_tokens=tokens, ignore_eos=True)
            made.append(_quantloom.cuda_counters()["launches"] - before)
    return int(made[1] - made[0])


def recipe(**changes: Any) -> Synthetic:
    return Synthetic(
        **{
            "layers": LAYERS,
            "embedding": 256,
            "heads": 4,
            "head_size": 64,
            "feed_forward": 512,
            "format": "Q4_K",
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("changes", "options", "obstacle"),
    [
        ({}, {}, ""),
        ({"tied": True}, {"cache_type": "q8_0"}, ""),
        ({}, {"cache_type": "f32"}, "no attention with heads of 64 values and an F32 cache"),
        ({}, {"batch_invariant": True}, ""),
        ({}, {"gpu_layers": LAYERS - 1}, ""),
        (
            {"heads": 1, "kv_heads": 1, "head_size": 256},
            {},
            "no attention with heads of 256 values and an F16 cache",
        ),
        ({"formats": {"blk.2.attn_v.weight": "F16"}}, {}, "tensor 'blk.2.attn_v.weight' is F16"),
        ({"architecture": "qwen2", "biases": ("attn_q", "attn_k", "attn_v")}, {}, ""),
    ],
)
def test_the_kernel_of_a_decode_step(
    changes: dict[str, Any], options: dict[str, Any], obstacle: str, tmp_path: Path
) -> None:
    is_hopper = cuda.devices()[0].capability[0] == 9
    is_one_kernel = not obstacle and is_hopper
    path = recipe(**changes).write(tmp_path)
    with quantloom.load(path, device="cuda", **options) as model:
        explained = model.explain()
        kernels = {
            tensor.name: tensor.kernel
            for tensor in explained.tensors
            if tensor.device != "cpu" and tensor.kernel not in ("", "embed")
        }
        launches = launches_of_a_step(model)
    layers = {name.split(".")[1] for name in kernels if name.startswith("blk.")}
    assert len(layers) == options.get("gpu_layers", LAYERS)
    assert explained.step == str(explained).splitlines()[-1]
    if is_one_kernel:
        assert explained.step == "layers of a token on cuda:0: one kernel"
        assert set(kernels.values()) == {"decode program"}
        assert launches < 2 * LAYERS
    else:
        assert (obstacle if is_hopper else "compute capability 9.0") in explained.step
        assert "decode program" not in kernels.values()
        assert launches >= 5 * LAYERS


def test_the_context_that_is_too_long_for_one_kernel(tmp_path: Path) -> None:
    path = recipe(context=40000).write(tmp_path)
    with quantloom.load(path, device="cuda", context_length=40000) as model:
        step = model.explain().step
    with quantloom.load(path, device="cpu") as model:
        assert model.explain().step == ""
    if cuda.devices()[0].capability[0] == 9:
        assert step.startswith("layers of a token on cuda:0: one kernel; in the end one for each")
        assert step.endswith(", as the context is longer than 33792 tokens")


def test_auto_says_why_it_took_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe().write(tmp_path)
    with quantloom.load(path, device="auto", gpu_layers=0) as model:
        assert model.device == "cpu"
    assert capsys.readouterr().err.endswith("on cpu (gpu_layers is 0)\n")


FAILING = """
import sys
import quantloom
from quantloom import _quantloom

_quantloom.arm_fault("cuda_call", int(sys.argv[2]))
with quantloom.load(sys.argv[1], device="auto") as model:
    _quantloom.arm_fault("cuda_call", 0)
    print(model.device)
"""


# As where the driver has lost the first GPU, or another process has all of its memory: what it is
# is not answered, the context cannot be made, or a kernel not be asked for.
@pytest.mark.parametrize("call", [1, 2, 3])
def test_auto_passes_over_a_gpu_that_cannot_be_used(call: int, tmp_path: Path) -> None:
    path = recipe().write(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FAILING, str(path), str(call)],
        capture_output=True,
        text=True,
        check=True,
    )
    taken = "cuda:1" if len(cuda.devices()) > 1 else "cpu"
    assert done.stdout == f"{taken}\n"
    assert done.stderr.count("\n") == 1
    where, why = done.stderr.split("; ", 1)
    assert f" on {taken} (" in where
    assert why.startswith("no GPU: cuda:0: " if taken == "cpu" else "cuda:0: ")
