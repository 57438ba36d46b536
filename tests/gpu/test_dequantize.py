"""The dequantization kernels give the CPU's bits, for every format and output type."""

from __future__ import annotations

import numpy as np
import pytest

from quantloom import Tensor, reference
from quantloom.errors import InvalidArgument
from quantloom.formats import FORMATS

NAMES = sorted(FORMATS)
GUARD = 64
SENTINEL = -1024  # which every type holds, and which is no NaN, as some of the values are


def random_tensor(name: str, rows: int, blocks: int) -> Tensor:
    kind = FORMATS[name]
    data = np.random.default_rng([rows, blocks, kind.id]).bytes(rows * blocks * kind.bytes)
    return Tensor.from_blocks(data, name, (rows, blocks * kind.elements))


def bits(array: np.ndarray) -> np.ndarray:
    """The bits of floats, every NaN as one pattern."""
    unsigned = array.view(f"u{array.itemsize}").copy()
    unsigned[np.isnan(array)] = np.iinfo(unsigned.dtype).max
    return unsigned


def values(tensor: Tensor) -> np.ndarray:
    """What a tensor holds, bfloat16 as the float32 of the same value."""
    if tensor.dtype != "bfloat16":
        return tensor.numpy()
    raw = tensor.as_bytes().numpy().view(np.uint16)
    return (raw.astype(np.uint32) << 16).view(np.float32)


def same(found: Tensor, expected: Tensor) -> None:
    np.testing.assert_array_equal(bits(values(found)), bits(values(expected)))


def guarded(tensor: Tensor, dtype: str) -> Tensor:
    """The values on the GPU, written over sentinels between others that are checked."""
    count = tensor.shape[0] * tensor.shape[1]
    room = Tensor(np.full(count + 2 * GUARD, SENTINEL, np.float32)).dequantize(dtype).to("cuda")
    out = room[GUARD:-GUARD].reshape(tensor.shape)
    assert tensor.dequantize(dtype, out=out) is out
    around = values(room)
    assert (around[:GUARD] == SENTINEL).all() and (around[-GUARD:] == SENTINEL).all()
    return out


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_the_cpu_and_the_gpu_give_the_same_bits(name: str, dtype: str) -> None:
    for rows, blocks in [(1, 1), (3, 5), (17, 33)]:
        tensor = random_tensor(name, rows, blocks)
        on_gpu = tensor.to("cuda")
        assert on_gpu.dequantize(dtype).device == "cuda:0"
        for part in (slice(None), slice(1, None), slice(None, None, 2)):
            same(guarded(on_gpu[part], dtype), tensor[part].dequantize(dtype))


@pytest.mark.parametrize("name", NAMES)
def test_against_the_reference(name: str) -> None:
    tensor = random_tensor(name, 5, 7)
    expected = reference.dequantize(tensor.as_bytes().numpy(), name)
    np.testing.assert_array_equal(
        bits(tensor.to("cuda").dequantize().numpy()), bits(expected.reshape(tensor.shape))
    )


def test_out_is_written_and_nothing_else() -> None:
    tensor = random_tensor("Q4_K", 4, 2).to("cuda")
    room = Tensor(np.full((6, 512), 7, np.float16), device="cuda")
    assert tensor.dequantize("float16", out=room[1:5]).numpy().shape == (4, 512)
    found = room.numpy()
    np.testing.assert_array_equal(found[[0, 5]], np.full((2, 512), 7, np.float16))
    np.testing.assert_array_equal(bits(found[1:5]), bits(tensor.dequantize("float16").numpy()))
    with pytest.raises(InvalidArgument, match="out is on cpu"):
        tensor.dequantize("float16", out=Tensor.empty((4, 512), "float16"))
    with pytest.raises(InvalidArgument, match="must be contiguous"):
        tensor.dequantize("float16", out=Tensor.empty((8, 512), "float16", "cuda")[::2])


def test_blocks_from_gpu_memory() -> None:
    tensor = random_tensor("Q6_K", 3, 2)
    there = Tensor(tensor.as_bytes().numpy(), device="cuda")
    again = Tensor.from_blocks(there, "Q6_K", (3, 512))
    assert again.device == "cuda:0"
    assert Tensor.from_blocks(there, "Q6_K", (3, 512), "cpu").device == "cpu"
    same(again.dequantize(), tensor.dequantize())
    with pytest.raises(InvalidArgument, match="takes"):
        Tensor.from_blocks(there[1:], "Q6_K", (3, 512), "cuda")
