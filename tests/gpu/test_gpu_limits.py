"""What a GPU cannot take is refused when it comes, not in the middle of its use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quantloom
from operations import checks, products
from quantloom import Tensor, _quantloom, cuda
from quantloom.formats import FORMATS
from synthetic_model import Synthetic

BEYOND = {
    "vocabulary": (
        Synthetic(
            tied=True,
            keys={"vocab_size": 262145},
            tensors={"token_embd.weight": np.zeros((262145, 64), np.float16)},
        ),
        "its vocabulary has 262145 tokens",
    ),
    "heads": (Synthetic(heads=1, kv_heads=1, head_size=544), "its heads have 544 values"),
    "columns": (Synthetic(feed_forward=90), "tensor 'blk.0.ffn_down.weight' has 90 columns"),
}


@pytest.mark.parametrize("kind", BEYOND)
def test_a_model_beyond_the_kernels(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, why = BEYOND[kind]
    path = recipe.write(tmp_path)
    for layers in (None, 1):
        with pytest.raises(quantloom.DeviceError, match=why):
            quantloom.load(path, device="cuda", gpu_layers=layers)
    with quantloom.load(path, device="auto") as model:
        assert model.device == "cpu" and model.gpu_layers == 0
        said = capsys.readouterr().err
        assert f"on cpu (cuda:0: {why}" in said and said.count("\n") == 1
        assert len(model.generate([1, 2, 3], max_new_tokens=2, ignore_eos=True).tokens) == 2
    with quantloom.load(path, device="cuda", gpu_layers=0) as model:
        assert model.device == "cpu"


def test_a_pass_of_more_tokens_than_a_grid_has_room_for(tmp_path: Path) -> None:
    path = Synthetic(context=70000, layers=1).write(tmp_path)
    with quantloom.load(path, device="cuda", context_length=70000) as model:
        with pytest.raises(quantloom.InvalidArgument, match="outside 1 to 65535"):
            model.session(prefill_chunk=65536)
        with model.session(prefill_chunk=65535) as session:
            session.reset()
    with quantloom.load(path, device="cpu", context_length=70000) as model:
        model.session(prefill_chunk=65536).close()


@pytest.mark.parametrize("format", ["IQ3_S", "IQ2_XS", "Q8_0"])
def test_one_token_in_what_one_token_reserves(format: str) -> None:
    """Where a table leaves the kernel for one token no room, the kernel for a few takes it."""
    columns = 4096
    runner = checks.runner("cuda", tokens=1, width=columns)
    weight, values = products.matrix(format, 32, columns)
    blocks = weight.as_bytes().numpy().reshape(-1)
    matrix = _quantloom.OperationMatrix(blocks, FORMATS[format].id, columns, None)
    x = products.activations(1, columns)
    assert not (products.error(runner.project(x, matrix), x, values) > products.BOUNDS["exact"])


@pytest.mark.parametrize("format", ["MXFP4", "Q4_0", "Q3_K"])
@pytest.mark.parametrize("first", [0, 1])
def test_rows_of_blocks_at_odd_addresses(format: str, first: int) -> None:
    kind = FORMATS[format]
    rows, columns = 6, 2 * kind.elements
    raw = np.random.default_rng(3).integers(
        0, 256, first * kind.bytes + rows * kind.row_bytes(columns), np.uint8
    )
    whole = Tensor.from_blocks(raw, format, (raw.size // kind.bytes * kind.elements,)).to("cuda")
    part = whole[first * kind.elements :].reshape(rows, columns)[::2]
    wanted = raw[first * kind.bytes :].reshape(rows, -1)[::2]
    assert np.array_equal(part.contiguous().as_bytes().numpy().reshape(wanted.shape), wanted)


def test_ternary_weights_are_multiplied_once_where_x_keeps_16_bits() -> None:
    kind = FORMATS["TQ2_0"]
    raw = np.random.default_rng(1).integers(0, 64, 16 * kind.row_bytes(256), np.uint8)
    w = Tensor.from_blocks(raw, "TQ2_0", (16, 256), device="cuda").pack()
    x = Tensor(np.ones((16, 256), np.float32), device="cuda")
    quantloom.matmul(x, w)
    before = _quantloom.cuda_counters()["launches"]
    quantloom.matmul(x, w)
    launches = _quantloom.cuda_counters()["launches"] - before
    # A part of x in halves and what they miss of it, or eight tokens at a time.
    assert launches == (3 if cuda.devices()[0].capability == (9, 0) else 1)


@pytest.mark.measures_hardware
def test_more_columns_than_kernels_count() -> None:
    w = Tensor.empty((1, 1 << 31), "float16", device="cuda")
    x = Tensor.empty((1, 1 << 31), "float32", device="cuda")
    with pytest.raises(quantloom.InvalidArgument, match="columns of w is 2147483648"):
        quantloom.matmul(x, w)
