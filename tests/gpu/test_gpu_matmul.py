"""quantloom.matmul on the GPU: every format against float64, packing, memory, streams."""

from __future__ import annotations

import gc
import threading
from functools import cache

import numpy as np
import pytest

from block_scales import SCALES
from operations.products import (
    BOUNDS,
    QUANTIZED,
    TOKENS,
    activations,
    error,
    guarded,
    matrix,
)
from quantloom import Tensor, _quantloom, cuda, matmul, reference
from quantloom.errors import DeviceError, InvalidArgument, OutOfMemory
from quantloom.formats import FORMATS


@cache
def there(tokens: int, columns: int) -> Tensor:
    return Tensor(activations(tokens, columns), device="cuda")


@pytest.mark.parametrize("format", QUANTIZED)
def test_against_float64(format: str) -> None:
    """Every number of tokens on odd rows and a tail of columns; one row, one block, a long row.

    "fast" runs the kernels of "exact", but for ternary weights where these round activations to
    halves: there "exact" adds what that misses.
    """
    rounds = format in ("TQ1_0", "TQ2_0") and cuda.devices()[0].capability == (9, 0)
    one_block = FORMATS[format].elements
    shapes = [(37, 3 * one_block, TOKENS), (1, one_block, [1, 3, 70]), (130, 2304, [1, 8, 16, 129])]
    for rows, columns, counts in shapes:
        w, weights = matrix(format, rows, columns)
        w = w.to("cuda")
        x = activations(max(counts), columns)
        for tokens in counts:
            found = guarded(there(max(counts), columns)[:tokens], w, "exact")
            assert error(found, x[:tokens], weights) <= BOUNDS["exact"], (rows, columns, tokens)
            again = guarded(there(max(counts), columns)[:tokens], w, "fast")
            if rounds and tokens > 8:
                assert error(found, x[:tokens], weights) <= 1e-11, (rows, columns, tokens)
                assert error(again, x[:tokens], weights) <= BOUNDS["exact"], (rows, columns, tokens)
                again = guarded(there(max(counts), columns)[:tokens], w, "exact")
            assert found.tobytes() == again.tobytes(), (rows, columns, tokens)


@pytest.mark.parametrize("format", ["Q4_0", "Q8_0", "Q4_K", "Q2_K", "Q6_K", "IQ2_XS"])
@pytest.mark.parametrize(
    ("rows", "columns"), [(290, 256), (290, 1280), (290, 4096), (100, 8448), (33, 32768)]
)
def test_few_tokens_and_many_strips(format: str, rows: int, columns: int) -> None:
    """Several strips for every warp; columns in one to eight slices with a short last one, and so
    many that GPUs with less shared memory have no room for all of x.
    """
    w, weights = matrix(format, rows, columns)
    w = w.to("cuda")
    x = activations(8, columns)
    for tokens in (1, 3, 8):
        found = guarded(Tensor(x[:tokens], device="cuda"), w, "exact")
        assert error(found, x[:tokens], weights) <= BOUNDS["exact"], tokens


@pytest.mark.parametrize(
    "format", ["Q4_0", "Q5_1", "Q8_0", "NVFP4", "Q4_K", "Q2_K", "Q6_K", "IQ2_XS"]
)
@pytest.mark.parametrize(
    ("rows", "columns"), [(40, 32), (16, 288), (100, 1056), (5, 4320), (72, 4352), (130, 12576)]
)
def test_few_tokens_share_their_conversion(format: str, rows: int, columns: int) -> None:
    """Two tiles of tokens, of which the second is short or whole: one strip for two blocks, slices
    that leave warps without a piece, and pieces of an odd number of groups.
    """
    elements = FORMATS[format].elements
    columns = (columns + elements - 1) // elements * elements
    w, weights = matrix(format, rows, columns)
    w = w.to("cuda")
    x = activations(8, columns)
    for tokens in (5, 6, 8, 16):
        x_here = np.resize(x, (tokens, columns))
        x_here[-1] *= 1000  # a step of its own
        found = guarded(Tensor(x_here, device="cuda"), w, "exact")
        for token in range(tokens):
            part = slice(token, token + 1)
            assert error(found[part], x_here[part], weights) <= BOUNDS["exact"], (tokens, token)


@pytest.mark.parametrize("format", ["Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ2_XS"])
def test_sums_of_splits_meet_in_a_cluster(format: str) -> None:
    """So many rows that on Hopper the columns are split in two, into unequal parts, with a short
    last row tile; and so few that they are split in six where a format's bytes take the time.
    """
    many = 256 * (cuda.devices()[0].multiprocessors // 2) - 100
    for rows, columns in [(many, 1280), (292, 4096)]:
        w, weights = matrix(format, rows, columns)
        w = w.to("cuda")
        x = activations(64, columns)
        for tokens in (9, 16, 33, 64):
            found = guarded(there(64, columns)[:tokens], w, "exact")
            assert error(found, x[:tokens], weights) <= BOUNDS["exact"], (rows, tokens)
            halves = matmul(there(64, columns)[:tokens], w, dtype="float16").numpy()
            assert halves.tobytes() == found.astype(np.float16).tobytes(), (rows, tokens)


@pytest.mark.parametrize("format", QUANTIZED)
def test_the_kernels_for_raw_blocks_agree(format: str) -> None:
    w, weights = matrix(format, 37, 1280)
    x = activations(5, 1280)
    for tokens in (1, 5):
        found = _quantloom.multiply(
            Tensor(x[:tokens], device="cuda")._native,
            w.to("cuda")._native,
            "exact",
            "float32",
            None,
        )
        assert error(Tensor._wrap(found).numpy(), x[:tokens], weights) <= 1e-10


@pytest.mark.parametrize("format", QUANTIZED)
def test_a_column_of_x_that_is_far_larger(format: str) -> None:
    w, weights = matrix(format, 66, 512)
    w = w.to("cuda")
    x = activations(130, 512)
    x[:, 5] *= 3000
    for tokens in (1, 9, 130):
        found = guarded(Tensor(x[:tokens], device="cuda"), w, "exact")
        assert error(found, x[:tokens], weights) <= BOUNDS["exact"], tokens


@pytest.mark.parametrize(
    "format", [f for f in SCALES if f.startswith(("Q", "IQ")) and FORMATS[f].elements == 256]
)
def test_the_largest_sums_have_room(format: str) -> None:
    """Quants and scales of all bits alike, and x whose every product has the same sign: sums that
    are added as integers come as far as they can.
    """
    for byte in (0x00, 0x55, 0x7F, 0x80, 0xAA, 0xFF):
        kind = FORMATS[format]
        blocks = np.full((17 * 512 // kind.elements, kind.bytes), byte, np.uint8)
        for i, at in enumerate(SCALES[format]):
            blocks[:, at : at + 2].view(np.float16)[:] = (0.01, 0.001)[i]
        weights = reference.dequantize(blocks, format).reshape(17, 512).astype(np.float64)
        w = Tensor.from_blocks(blocks, format, (17, 512), "cuda")
        # In fixed point 1 has no lower byte, and the other a large one.
        x = np.where(weights[0] < 0, -1, 1) * np.where(np.arange(512) % 256 == 0, 1, 0.996)
        for tokens in (2, 8):
            some = np.tile(x.astype(np.float32), (tokens, 1))
            found = guarded(Tensor(some, device="cuda"), w, "exact")
            largest = np.abs(x) @ np.abs(weights).T
            assert (np.abs(found - x @ weights.T) <= 1e-4 * largest).all(), (byte, tokens)


@pytest.mark.parametrize("format", ["Q4_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K", "IQ3_S", "TQ2_0"])
def test_nan_and_infinity_pass_through(format: str) -> None:
    w, weights = matrix(format, 40, 512)
    w = w.to("cuda")
    for tokens in (1, 6, 12, 70):
        x = activations(tokens, 512)
        clean = matmul(Tensor(x, device="cuda"), w).numpy()
        for value in (np.nan, np.inf, -np.inf):
            bad = x.copy()
            bad[tokens // 2, 77] = value
            found = matmul(Tensor(bad, device="cuda"), w).numpy()
            hit = weights[:, 77] != 0
            assert not np.isfinite(found[tokens // 2, hit]).any(), (tokens, value)
            others = np.arange(tokens) != tokens // 2
            np.testing.assert_array_equal(found[others], clean[others])


@pytest.mark.parametrize("format", ["Q4_0", "Q8_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("bits", [0x7E00, 0x7C00])
def test_a_scale_that_is_not_finite_stays_in_its_row(format: str, bits: int) -> None:
    good, weights = matrix(format, 40, 512)
    kind = FORMATS[format]
    blocks = good.as_bytes().numpy().copy().reshape(40, -1, kind.bytes)
    at = kind.bytes - 2 if format == "Q6_K" else 0
    blocks[7, 1, at : at + 2] = np.array([bits], np.uint16).view(np.uint8)
    w = Tensor.from_blocks(blocks, format, (40, 512), "cuda")
    others = np.arange(40) != 7
    for tokens in (1, 6, 70):
        x = activations(tokens, 512)
        found = matmul(Tensor(x, device="cuda"), w).numpy()
        assert not np.isfinite(found[:, 7]).any(), tokens
        assert error(found[:, others], x, weights[others]) <= BOUNDS["exact"], tokens


@pytest.mark.parametrize("columns", [36, 264])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_float_weights(dtype: str, columns: int) -> None:
    """Float32 up to 8 tokens and where the columns are no whole eights; else the tensor cores."""
    w = Tensor(np.random.default_rng(0).standard_normal((700, columns)).astype(np.float32))
    w = w.dequantize(dtype)
    weights = w.dequantize().numpy().astype(np.float64)
    for tokens in (1, 2, 8, 9, 40, 130):
        x = activations(tokens, columns)
        found = guarded(Tensor(x, device="cuda"), w.to("cuda"), "exact")
        bound = 1e-10 if tokens <= 8 or columns % 8 else BOUNDS["exact"]
        assert error(found, x, weights) <= bound, tokens
    with pytest.raises(InvalidArgument, match="multiplied in fours"):
        matmul(Tensor.empty((1, 5), device="cuda"), Tensor.empty((3, 5), device="cuda"))


def test_float_weights_and_more_tokens_than_a_grid_has_room_for() -> None:
    tokens = 8 * 65535 + 1
    x = (np.arange(4 * tokens) % 7).astype(np.float32).reshape(tokens, 4)
    weights = np.array([[1, 2, 3, 4]], np.float32)
    found = matmul(Tensor(x, device="cuda"), Tensor(weights, device="cuda"))
    np.testing.assert_array_equal(found.numpy(), x @ weights.T)


@pytest.mark.parametrize("format", QUANTIZED)
def test_packing_keeps_every_bit(format: str) -> None:
    kind = FORMATS[format]
    for rows, blocks in [(1, 1), (17, 3), (33, 9), (16, 40)]:
        data = np.random.default_rng([rows, blocks, kind.id]).bytes(rows * blocks * kind.bytes)
        w = Tensor.from_blocks(data, format, (rows, blocks * kind.elements), "cuda")
        packed = w.pack()
        assert (packed.is_packed, w.is_packed) == (True, False)
        back = packed.unpack()
        assert not back.is_packed
        assert back.as_bytes().numpy().tobytes() == data
        padded = (rows + 15) // 16 * 16
        assert packed.nbytes == padded * blocks * kind.bytes + 16


def test_a_packed_tensor_is_what_it_was() -> None:
    w, weights = matrix("Q4_K", 50, 512)
    blocks = w.as_bytes().numpy()
    packed = w.to("cuda").pack()
    assert repr(packed) == "<Tensor Q4_K (50, 512) on cuda:0, packed>"
    assert (packed.shape, packed.format, packed.device) == ((50, 512), "Q4_K", "cuda:0")
    assert (packed.strides, packed.size, len(packed)) == (w.strides, w.size, 50)
    assert packed.is_quantized and packed.is_contiguous and not packed.is_read_only
    assert packed.to("cuda") is packed and packed.pack() is packed
    assert packed.contiguous() is packed
    np.testing.assert_array_equal(packed.numpy(), blocks)
    np.testing.assert_array_equal(packed.cpu().as_bytes().numpy(), blocks)
    np.testing.assert_array_equal(packed.dequantize().numpy(), weights)
    np.testing.assert_array_equal(packed[3:9].dequantize().numpy(), weights[3:9])
    np.testing.assert_array_equal(packed.reshape(25, 1024).numpy().reshape(50, -1), blocks)


def test_a_product_packs_what_was_asked_to_be_where_it_is() -> None:
    w = matrix("Q4_K", 32, 512)[0].to("cuda")
    for place in ("cuda", "cuda:0"):
        assert w.to(place) is w
    matmul(there(1, 512), w.to("cuda").contiguous())
    assert w.is_packed


def test_the_first_product_packs_and_nothing_is_held_twice() -> None:
    w, _ = matrix("Q8_0", 4096, 1024)
    x = there(3, 1024)
    there(3, 512)
    gc.collect()
    cuda.trim()
    before = cuda.memory().in_use
    on_gpu = w.to("cuda")
    in_blocks = cuda.memory().in_use - before
    for wrong in (Tensor(activations(3, 1024)), there(3, 512), w.to("cuda")):
        with pytest.raises(InvalidArgument):
            matmul(wrong, on_gpu)
    del wrong
    gc.collect()
    assert not on_gpu.is_packed
    y = matmul(x, on_gpu)
    assert on_gpu.is_packed
    del y
    assert cuda.memory().in_use - before <= in_blocks + 65536  # the pool's step, for 16 more bytes
    del on_gpu
    gc.collect()
    assert cuda.memory().in_use == before


def test_shapes_types_and_views_of_x() -> None:
    w, weights = matrix("Q5_K", 33, 512)
    w = w.to("cuda")
    x = activations(24, 512)
    on_gpu = Tensor(x, device="cuda")
    found = matmul(on_gpu.reshape(2, 3, 4, 512), w)
    assert (found.shape, found.dtype, found.device) == ((2, 3, 4, 33), "float32", "cuda:0")
    assert error(found.numpy().reshape(24, 33), x, weights) <= 1e-6
    assert matmul(on_gpu[0], w).shape == (33,)
    assert error(matmul(on_gpu[::-2], w).numpy(), x[::-2], weights) <= 1e-6
    assert matmul(on_gpu[:0], w).shape == (0, 33)
    for dtype in ("float16", "bfloat16"):
        rounded = on_gpu.dequantize(dtype)
        assert error(matmul(rounded, w).numpy(), rounded.numpy(), weights) <= 1e-6
    with pytest.raises(InvalidArgument, match=r"w is \(512,\); it must be a matrix"):
        matmul(on_gpu, w[0])
    with pytest.raises(InvalidArgument, match="x is on cpu and w on cuda:0; move one"):
        matmul(x, w)
    with pytest.raises(InvalidArgument, match="out is on cpu and x on cuda:0"):
        matmul(on_gpu, w, out=Tensor.empty((24, 33)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("format", ["Q4_K", "Q8_0", "Q6_K", "IQ3_S", "TQ2_0", "F16"])
def test_sixteen_bits_in_and_out(format: str, dtype: str) -> None:
    """To the bit what float32 of the same values gives, rounded at the end."""
    for rows, columns in [(276, 2304), (37, 512)]:
        if format == "F16":
            w = Tensor(activations(rows, columns), device="cuda").dequantize("float16")
        else:
            w = matrix(format, rows, columns)[0].to("cuda")
        x = Tensor(4 * activations(300, columns), device="cuda").dequantize(dtype)
        for tokens in (1, 5, 9, 17, 64, 130, 300):
            some = x[:tokens]
            expected = matmul(some.dequantize(), w)
            assert matmul(some, w).numpy().tobytes() == expected.numpy().tobytes(), tokens
            room = Tensor(np.full(tokens * rows + 16, 7, np.float32), device="cuda")
            room = room.dequantize(dtype)
            out = room[8:-8].reshape(tokens, rows)
            assert matmul(some, w, out=out) is out
            rounded = expected.dequantize(dtype).numpy()
            assert out.numpy().tobytes() == rounded.tobytes(), tokens
            around = room.numpy()
            assert (around[:8] == 7).all() and (around[-8:] == 7).all()
            assert matmul(some, w, dtype=dtype).numpy().tobytes() == rounded.tobytes()
    with pytest.raises(InvalidArgument, match="out is float32 .* it must be " + dtype):
        matmul(some, w, dtype=dtype, out=expected)


def test_memory_at_odd_addresses() -> None:
    w, weights = matrix("Q6_K", 33, 512)
    x = activations(6, 512)
    room = Tensor(np.concatenate([np.zeros(1, np.float32), x.ravel()]), device="cuda")
    shifted = room[1:].reshape(6, 512)
    out = Tensor(np.full(6 * 33 + 2, 7, np.float32), device="cuda")
    matmul(shifted, w.to("cuda")[1:], out=out[1:193].reshape(6, 32))
    found = out.numpy()
    assert error(found[1:193].reshape(6, 32), x, weights[1:]) <= 1e-6
    assert (found[[0, *range(193, 200)]] == 7).all()


@pytest.mark.slow_emulated
def test_a_call_larger_than_its_workspace_is_cut() -> None:
    w, weights = matrix("Q4_0", 24, 4096)
    x = activations(100, 4096)
    many = np.tile(x, (400, 1))
    found = matmul(Tensor(many, device="cuda"), w.to("cuda")).numpy().reshape(400, 100, 24)
    for part in found[[0, 137, 398, 399]]:
        assert error(part, x, weights) <= 1e-6
    assert np.abs(found - found[:1]).max() <= 1e-2 * np.abs(found[0]).max()


def test_torch_gives_x_and_takes_the_result() -> None:
    torch = pytest.importorskip("torch")
    w, weights = matrix("Q4_K", 256, 1024)
    w = w.to("cuda")
    side = torch.cuda.Stream()
    for trial in range(3):
        torch.manual_seed(trial)
        with torch.cuda.stream(side):
            x = torch.randn(64, 1024, device="cuda", dtype=torch.bfloat16)
            torch.cuda._sleep(5_000_000)
            x.add_(1)
            y = torch.from_dlpack(matmul(x, w))
            doubled = (2 * y).cpu().numpy() / 2
        assert error(doubled, x.float().cpu().numpy(), weights) <= 1e-6
    out = torch.zeros(64, 256, device="cuda")
    matmul(x, w, out=Tensor(out))
    cuda.synchronize()
    assert error(out.cpu().numpy(), x.float().cpu().numpy(), weights) <= 1e-6


def test_threads_share_a_matrix() -> None:
    w, _ = matrix("Q6_K", 257, 2048)
    w = w.to("cuda")
    alone = {tokens: matmul(there(64, 2048)[:tokens], w.clone()).numpy() for tokens in (1, 7, 64)}
    wrong = []

    def work(tokens: int) -> None:
        for _ in range(20):
            if matmul(there(64, 2048)[:tokens], w).numpy().tobytes() != alone[tokens].tobytes():
                wrong.append(tokens)

    threads = [threading.Thread(target=work, args=(tokens,)) for tokens in (1, 7, 64) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_every_failing_call_is_a_typed_error_and_leaves_nothing() -> None:
    w, _ = matrix("TQ2_0", 40, 512)
    x = activations(70, 512)

    def work() -> bytes:
        found = matmul(Tensor(x, device="cuda"), w.to("cuda")).numpy()
        return found.tobytes()

    expected = work()
    for point in ("cuda_call", "device_allocation"):
        cuda.trim()
        _quantloom.arm_fault(point, 0)
        work()
        passed = _quantloom.fault_points_passed(point)
        raised = 0
        for n in range(1, passed + 1):
            cuda.trim()
            before = cuda.memory().in_use
            _quantloom.arm_fault(point, n)
            try:
                assert work() == expected  # what fails while memory goes back costs nobody anything
            except (DeviceError, OutOfMemory):
                raised += 1
            finally:
                _quantloom.arm_fault(point, 0)
            gc.collect()
            assert cuda.memory().in_use == before
            assert work() == expected
        assert raised >= 5
