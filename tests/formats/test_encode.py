"""Encoding: the error stays within what llama.cpp's quantizer reaches, and bad input is named."""

from __future__ import annotations

import numpy as np
import pytest

from quantloom import reference
from quantloom.errors import InvalidArgument, NumericsError
from quantloom.formats import FORMATS
from quantloom.quantization import dequantize, quantize

ENCODABLE = [name for name, kind in FORMATS.items() if kind.encodable]
QUANTIZED = [name for name in ENCODABLE if name not in ("F32", "F16", "BF16")]

# Root mean square error of llama.cpp's quantizer over the root mean square of the data: what
# `Baseline` and `error` of benchmarks/quantization_error.py give for the arrays of `sample`.
LLAMA_CPP: dict[tuple[str, str], float] = {
    ("Q4_0", "gaussian"): 0.086088,
    ("Q4_0", "heavy-tailed"): 0.128598,
    ("Q4_0", "row scales"): 0.111822,
    ("Q4_1", "gaussian"): 0.078118,
    ("Q4_1", "heavy-tailed"): 0.100236,
    ("Q4_1", "row scales"): 0.092552,
    ("Q5_0", "gaussian"): 0.042647,
    ("Q5_0", "heavy-tailed"): 0.066059,
    ("Q5_0", "row scales"): 0.056075,
    ("Q5_1", "gaussian"): 0.037798,
    ("Q5_1", "heavy-tailed"): 0.048353,
    ("Q5_1", "row scales"): 0.044687,
    ("Q8_0", "gaussian"): 0.005370,
    ("Q8_0", "heavy-tailed"): 0.008358,
    ("Q8_0", "row scales"): 0.007056,
    ("Q2_K", "gaussian"): 0.296089,
    ("Q2_K", "heavy-tailed"): 0.352382,
    ("Q2_K", "row scales"): 0.343507,
    ("Q3_K", "gaussian"): 0.150898,
    ("Q3_K", "heavy-tailed"): 0.191078,
    ("Q3_K", "row scales"): 0.181378,
    ("Q4_K", "gaussian"): 0.071369,
    ("Q4_K", "heavy-tailed"): 0.092732,
    ("Q4_K", "row scales"): 0.085228,
    ("Q5_K", "gaussian"): 0.036160,
    ("Q5_K", "heavy-tailed"): 0.046825,
    ("Q5_K", "row scales"): 0.043238,
    ("Q6_K", "gaussian"): 0.017743,
    ("Q6_K", "heavy-tailed"): 0.025400,
    ("Q6_K", "row scales"): 0.022294,
    ("F16", "gaussian"): 0.000208,
    ("F16", "heavy-tailed"): 0.000206,
    ("F16", "row scales"): 0.000205,
    ("BF16", "gaussian"): 0.001660,
    ("BF16", "heavy-tailed"): 0.001691,
    ("BF16", "row scales"): 0.001669,
}


def sample(kind: str) -> np.ndarray:
    random = np.random.default_rng(7)
    shape = (64, 1024)
    values = {
        "gaussian": lambda: random.standard_normal(shape),
        "heavy-tailed": lambda: random.standard_t(3, shape),
        "row scales": lambda: (
            0.02
            * np.exp(0.5 * random.standard_normal((shape[0], 1)))
            * np.exp(0.5 * random.standard_normal((1, shape[1])))
            * random.standard_normal(shape)
        ),
    }[kind]()
    return values.astype(np.float32)


def relative_error(values: np.ndarray, decoded: np.ndarray) -> float:
    difference = decoded.astype(np.float64) - values
    return float(np.sqrt(np.mean(difference**2) / np.mean(values.astype(np.float64) ** 2)))


def test_what_can_be_written() -> None:
    assert set(ENCODABLE) == {
        "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
        "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), sorted(LLAMA_CPP))
def test_error_is_within_two_percent_of_llama_cpp(name: str, kind: str) -> None:
    values = sample(kind)
    error = relative_error(values, reference.dequantize(quantize(values, name), name))
    bound = 1.02 * LLAMA_CPP[name, kind]
    assert error <= bound, f"{name} on {kind}: {error:.6f}, above {bound:.6f}"


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("scale", [1e-6, 1e-5, 1e-4, 1e-3, 1.0, 1e4])
def test_error_at_every_magnitude(name: str, scale: float) -> None:
    """Half scales cover what weights need; where they turn subnormal they grow coarser."""
    values = sample("gaussian") * np.float32(scale)
    error = relative_error(values, dequantize(quantize(values, name), name))
    bound = 1.02 * LLAMA_CPP[name, "gaussian"]
    # Half of the smallest step, of 2^-24, at either end of every weight.
    coarser = 2.0**-25 / scale
    assert error <= (bound if scale >= 1e-3 else 1.3 * bound + coarser), f"{name}: {error}"


@pytest.mark.parametrize("name", QUANTIZED)
def test_weights_near_the_smallest_scale(name: str) -> None:
    """None is further from itself than from zero, whatever its scale rounds to."""
    for scale in 2.0 ** np.arange(-40, -14):
        values = sample("gaussian")[:2] * np.float32(scale)
        values[:, ::37] *= 3
        error = relative_error(values, dequantize(quantize(values, name), name))
        assert error <= 1.0, f"{name} at {scale}: {error}"


@pytest.mark.parametrize("name", ENCODABLE)
def test_one_block_many_blocks_and_threads_agree(name: str) -> None:
    values = sample("gaussian").reshape(-1)
    whole = quantize(values, name, threads=1)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(quantize(values, name, threads=threads), whole)
    kind = FORMATS[name]
    for index in (0, 1, len(values) // kind.elements - 1):
        block = quantize(values[index * kind.elements : (index + 1) * kind.elements], name)
        expected = whole[index * kind.bytes : (index + 1) * kind.bytes]
        np.testing.assert_array_equal(block, expected)


@pytest.mark.parametrize("name", ENCODABLE)
def test_shape_goes_by_rows(name: str) -> None:
    values = sample("gaussian")[:6].reshape(2, 3, 1024)
    blocks = quantize(values, name)
    kind = FORMATS[name]
    assert blocks.dtype == np.uint8
    assert blocks.shape == (2, 3, 1024 // kind.elements * kind.bytes)
    assert dequantize(blocks, name).shape == values.shape
    np.testing.assert_array_equal(quantize(values.astype(np.float64), name), blocks)
    np.testing.assert_array_equal(quantize(values[:, ::2], name), blocks[:, ::2])


@pytest.mark.parametrize("name", QUANTIZED)
def test_zeros_stay_zero(name: str) -> None:
    values = np.zeros(512, np.float32)
    np.testing.assert_array_equal(dequantize(quantize(values, name), name), values)
    values[300] = 1.0
    decoded = dequantize(quantize(values, name), name)
    np.testing.assert_array_equal(decoded[:256], values[:256])


@pytest.mark.parametrize("name", QUANTIZED)
@pytest.mark.parametrize("value", [0.37, -0.37, 1.0, 1e-30, -1e-45])
def test_constants(name: str, value: float) -> None:
    values = np.full(512, value, np.float32)
    decoded = dequantize(quantize(values, name), name)
    assert np.max(np.abs(decoded - values)) <= max(0.04 * abs(value), 1e-7)


@pytest.mark.parametrize("name", QUANTIZED)
def test_encoding_what_was_decoded_loses_little(name: str) -> None:
    once = dequantize(quantize(sample("gaussian"), name), name)
    twice = dequantize(quantize(once, name), name)
    first = relative_error(sample("gaussian"), once)
    again = relative_error(once, twice)
    assert again <= 0.6 * first, f"{again} after {first}"


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_halves_round_to_nearest_even(name: str) -> None:
    random = np.random.default_rng(3)
    bits = random.integers(0, 2**32, 200_000, np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    limit = 65519.0 if name == "F16" else 3.38e38
    values = values[np.isfinite(values) & (np.abs(values) <= limit)]
    ties = np.arange(0, 31743, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (ties[:-1].astype(np.float64) + ties[1:]) / 2
    small = np.ldexp(np.float32(1), np.arange(-149, 15)).astype(np.float32)
    values = np.concatenate([values, ties.astype(np.float32), small, -small, [0.0, -0.0]])
    values = values.astype(np.float32)
    found = quantize(values, name).view(np.uint16)
    if name == "F16":
        with np.errstate(over="ignore"):
            expected = values.astype(np.float16).view(np.uint16)
    else:
        raw = values.view(np.uint32).astype(np.uint64)
        expected = ((raw + 0x7FFF + (raw >> 16 & 1)) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ENCODABLE)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 255, 256, 70_001])
def test_not_finite_is_refused_by_position(name: str, bad: float, position: int) -> None:
    values = np.ones(1 << 17, np.float32)
    values[position] = bad
    values[100_000] = np.nan  # the first one counts, whichever thread is faster
    with pytest.raises(NumericsError, match=rf"value {position} is -?(nan|inf); {name}"):
        quantize(values, name, threads=4)


@pytest.mark.parametrize("name", [n for n in ENCODABLE if n not in ("F32", "BF16")])
def test_too_large_is_refused_by_position(name: str) -> None:
    for huge in (3e38, -1e16, 1e12):
        values = np.ones(1024, np.float32)
        values[513] = huge
        with pytest.raises(NumericsError, match=rf"value 513 is .*, too large for {name}"):
            quantize(values, name)


def test_float64_beyond_float32_is_refused() -> None:
    for first, says in ((-1e300, r"is -1e\+300, too large for"), (np.inf, "is inf; ")):
        values = np.ones((2, 256))
        values[1, 3], values[1, 9] = first, 1e301
        for name in ("F32", "BF16", "Q4_K"):
            for dtype in (np.float64, np.longdouble):
                with pytest.raises(NumericsError, match=f"value 259 {says}.*{name}"):
                    quantize(values.astype(dtype), name)


@pytest.mark.parametrize("name", QUANTIZED)
def test_parts_of_a_block_are_refused(name: str) -> None:
    elements = FORMATS[name].elements
    for length in (1, elements - 1, elements + 1):
        with pytest.raises(InvalidArgument, match=f"{length} weights is not whole {name}"):
            quantize(np.zeros((2, length), np.float32), name)


@pytest.mark.parametrize("name", sorted(set(FORMATS) - set(ENCODABLE)))
def test_formats_without_an_encoder_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} cannot be written; F32, F16"):
        quantize(np.zeros(256, np.float32), name)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(256, np.complex64), "complex64 values are not real"),
        (np.array(["a"] * 32), "not real numbers"),
        (np.float32(1), r"shape \(\) has no weights"),
        (np.zeros((0, 256), np.float32), r"shape \(0, 256\) has no weights"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        quantize(array, "Q4_K")


def test_unknown_format() -> None:
    with pytest.raises(InvalidArgument, match="'Q9_K' is no GGUF tensor type"):
        quantize(np.zeros(256, np.float32), "Q9_K")
