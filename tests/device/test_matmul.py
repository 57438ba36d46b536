"""quantloom.matmul on the CPU, and what it refuses anywhere."""

from __future__ import annotations

import numpy as np
import pytest

import quantloom
from operations.products import BOUNDS, QUANTIZED, activations, error, guarded, matrix
from quantloom import Tensor, matmul, reference
from quantloom.errors import InvalidArgument
from quantloom.formats import FORMATS
from quantloom.model import bundled_model


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("format", QUANTIZED)
def test_against_float64(format: str, precision: str) -> None:
    one_block = FORMATS[format].elements
    for rows, columns in [(1, one_block), (37, 3 * one_block), (66, 1280)]:
        w, weights = matrix(format, rows, columns)
        x = activations(19, columns)
        for tokens in (1, 2, 7, 19):
            found = guarded(Tensor(x[:tokens]), w, precision)
            assert error(found, x[:tokens], weights) <= BOUNDS[precision], (rows, columns, tokens)
            again = guarded(Tensor(x[:tokens]), w, precision)
            assert found.tobytes() == again.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_float_weights(dtype: str) -> None:
    w = Tensor(np.random.default_rng(0).standard_normal((9, 35)).astype(np.float32))
    w = w.dequantize(dtype)
    x = activations(4, 35)
    weights = w.dequantize().numpy().astype(np.float64)
    assert error(matmul(x, w).numpy(), x, weights) <= 1e-6


@pytest.mark.parametrize("format", ["Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS"])
def test_a_column_of_x_that_is_far_larger(format: str) -> None:
    w, weights = matrix(format, 66, 512)
    x = activations(9, 512)
    x[:, 5] *= 3000
    for tokens in (1, 9):
        found = guarded(Tensor(x[:tokens]), w, "exact")
        assert error(found, x[:tokens], weights) <= BOUNDS["exact"]


def test_shapes_and_types_of_x() -> None:
    w, weights = matrix("Q4_K", 33, 512)
    x = activations(24, 512)
    assert matmul(x[0], w).shape == (33,)
    found = matmul(x.reshape(2, 3, 4, 512), w)
    assert (found.shape, found.dtype, found.device) == ((2, 3, 4, 33), "float32", "cpu")
    assert error(found.numpy().reshape(24, 33), x, weights) <= 1e-6
    assert error(matmul(x[::-2], w).numpy(), x[::-2], weights) <= 1e-6
    wide = np.repeat(x, 2, axis=1)
    assert error(matmul(wide[:, ::2], w).numpy(), x, weights) <= 1e-6
    assert matmul(x[:0], w).shape == (0, 33)
    assert matmul(x, w[:0]).shape == (24, 0)
    assert error(matmul(x, w[4:9]).numpy(), x, weights[4:9]) <= 1e-6
    assert error(matmul(x, w[::3]).numpy(), x, weights[::3]) <= 1e-6
    half = x.astype(np.float16)
    assert error(matmul(half, w).numpy(), half, weights) <= 1e-6
    brain = Tensor(x).dequantize("bfloat16")
    assert error(matmul(brain, w).numpy(), brain.numpy(), weights) <= 1e-6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_results_in_sixteen_bits(dtype: str) -> None:
    w, _ = matrix("Q4_K", 33, 512)
    x = activations(5, 512)
    expected = matmul(x, w).dequantize(dtype)
    found = matmul(x, w, dtype=dtype)
    assert (found.dtype, found.shape) == (dtype, (5, 33))
    assert found.as_bytes().numpy().tobytes() == expected.as_bytes().numpy().tobytes()
    out = Tensor.empty((5, 33), dtype)
    assert matmul(x, w, out=out) is out
    assert out.as_bytes().numpy().tobytes() == expected.as_bytes().numpy().tobytes()


def test_nan_and_infinity_pass_through() -> None:
    w, weights = matrix("Q6_K", 20, 256)
    x = activations(6, 256)
    clean = matmul(x, w).numpy()
    for value in (np.nan, np.inf, -np.inf):
        bad = x.copy()
        bad[2, 77] = value
        found = matmul(bad, w).numpy()
        hit = weights[:, 77] != 0
        assert not np.isfinite(found[2, hit]).any()
        np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(clean, 2, 0))


def test_a_tensor_of_a_file() -> None:
    with quantloom.open(bundled_model()) as file:
        lazy = file.tensors["blk.0.attn_q.weight"]
        x = activations(3, lazy.shape[1])
        weights = lazy.dequantize().astype(np.float64)
        assert error(matmul(x, lazy).numpy(), x, weights) <= 1e-6
        tensor = lazy.to("cpu")
        assert (tensor.format, tensor.shape) == (lazy.format, lazy.shape)
        np.testing.assert_array_equal(tensor.as_bytes().numpy().reshape(-1), lazy.bytes)
        same = Tensor(lazy)
        assert (same.format, same.shape, same.is_read_only) == (lazy.format, lazy.shape, True)
        assert np.shares_memory(same.numpy(), lazy.bytes)


def test_what_is_refused() -> None:
    w, _ = matrix("Q4_0", 6, 64)
    x = activations(5, 64)
    for arguments, subject, says in [
        ((x.astype(np.float64), w), "x", "x is float64; it must be float32, float16 or bfloat16"),
        ((x.astype(np.int8), w), "x", "x is int8"),
        ((w, w), "x", "x is Q4_0; dequantize it first"),
        ((x[:, :32], w), "x", r"x is \(5, 32\) and w is \(6, 64\): the last dimensions differ"),
        ((np.float32(1), w), "x", "x has no dimensions"),
        (("words", w), "x", "x: dtype"),
        ((x, w.reshape(-1)), "w", r"w is \(384,\); it must be a matrix"),
        ((x, x.astype(np.int32)), "w", "w is int32; it must be in quantized blocks"),
        ((x, np.zeros((4, 0), np.float32)), "w", "w has no columns"),
        ((x, w, np.array(["a", "b"])), "precision", "is not one of 'exact', 'fast'"),
        ((x, w, "precise"), "precision", "precision 'precise' is not one of 'exact', 'fast'"),
    ]:
        with pytest.raises(InvalidArgument, match=says) as caught:
            matmul(*arguments)
        assert caught.value.subject == subject


def test_an_out_that_does_not_fit() -> None:
    w, _ = matrix("Q8_0", 64, 64)
    x = Tensor(activations(5, 64))
    fixed = np.zeros((5, 64), np.float32)
    fixed.flags.writeable = False
    for out, says in [
        (Tensor.empty((5, 63)), r"out is float32 \(5, 63\); it must be float32 \(5, 64\)"),
        (Tensor.empty((5, 64), "float64"), "out is float64; it must be float32, float16 or"),
        (Tensor.empty((10, 64))[::2], "out must be contiguous"),
        (Tensor(fixed), "out is read-only"),
        (x, "out shares memory with x"),
        (fixed, "out must be a quantloom.Tensor, not ndarray"),
    ]:
        with pytest.raises(InvalidArgument, match=says) as caught:
            matmul(x, w, out=out)  # type: ignore[arg-type]
        assert caught.value.subject == "out"
    with pytest.raises(InvalidArgument, match=r"out is float16 .* it must be bfloat16") as caught:
        matmul(x, w, dtype="bfloat16", out=Tensor.empty((5, 64), "float16"))
    assert caught.value.subject == "out"
    with pytest.raises(InvalidArgument, match="dtype is int8; it must be float32") as caught:
        matmul(x, w, dtype="int8")
    assert caught.value.subject == "dtype"
    with pytest.raises(InvalidArgument, match="dtype 'half' is not one of") as caught:
        matmul(x, w, dtype="half")
    assert caught.value.subject == "dtype"


def test_the_cpu_multiplies_from_blocks() -> None:
    w, weights = matrix("Q5_K", 5, 256)
    for tensor, says in (
        (w, "the tensor is on the CPU, which multiplies from blocks"),
        (Tensor(activations(2, 256)), "the tensor is float32, which has no planes"),
    ):
        with pytest.raises(InvalidArgument, match=says) as caught:
            tensor.pack()
        assert caught.value.subject == "tensor"
    assert w.unpack() is w
    assert not w.is_packed
    matmul(activations(2, 256), w)
    assert not w.is_packed
    assert w.nbytes == 5 * 176
    np.testing.assert_array_equal(w.dequantize().numpy(), weights)
    np.testing.assert_array_equal(
        reference.dequantize(w.as_bytes().numpy(), "Q5_K").reshape(5, 256), weights
    )
