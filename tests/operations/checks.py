"""Checks of ops/operations.h against float64 NumPy, the same on every device.

The runner poisons outputs before each call and checks the sentinels beside them after it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import quantloom
from operations.products import sane_blocks
from quantloom import _quantloom, reference
from quantloom.formats import FORMATS, tensor_type
from quantloom.reference.forward import cached
from same_bits import assert_same_bits

Array = npt.NDArray[Any]


def runner(device: str, precision: str = "exact", **limits: int) -> Any:
    made = _quantloom.OperationRunner(device, precision)
    sizes = {
        "tokens": 512,
        "width": 4096,
        "context": 4096,
        "heads": 32,
        "head_size": 128,
        "vocabulary": 1024,
    }
    made.reserve(**(sizes | limits))
    return made


def error(out: Array, wanted: Array) -> float:
    """Normalized mean square error; infinite where a value is not finite."""
    if not np.isfinite(out).all():
        return np.inf
    return float(np.square(out - wanted).sum() / max(np.square(wanted).sum(), 1e-300))


def apart(out: Array, wanted: Array) -> float:
    """The larger error of the tokens with an outlier and those without, which are far smaller."""
    return max(error(out[i::2], wanted[i::2]) for i in (0, 1) if len(wanted) > i)


def matrix(
    random: np.random.Generator,
    rows: int,
    columns: int,
    format: str,
    bias: bool = False,
    scale: Array | None = None,
) -> tuple[Any, Array, Array]:
    """A quantized matrix, its decoded float64 weights and its bias (zeros where none).

    `scale` is of the rows. Formats that nothing encodes have random blocks, of any scale.
    """
    weights = random.normal(0, 0.05, (rows, columns)).astype(np.float32)
    if scale is not None:
        weights *= scale[:, None].astype(np.float32)
    kind = FORMATS[format]
    if format == "F32":
        blocks = weights.view(np.uint8).reshape(-1)
    elif kind.encodable:
        blocks = quantloom.quantize(weights, format).reshape(-1)
    else:
        pool = sane_blocks(format, 0.05 / 16, 4 * 0.05)
        blocks = pool[random.integers(0, len(pool), weights.size // kind.elements)].reshape(-1)
    added = random.normal(0, 1, rows).astype(np.float32) if bias else None
    decoded = reference.dequantize(blocks, format).reshape(rows, columns).astype(np.float64)
    made = _quantloom.OperationMatrix(blocks, tensor_type(format).id, columns, added)
    return made, decoded, np.zeros(rows) if added is None else added.astype(np.float64)


def rms(x: Array, weight: Array, epsilon: float) -> Array:
    x = x.astype(np.float64)
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + epsilon) * weight


def check_norm(device: str, rows: int, width: int) -> None:
    random = np.random.default_rng(rows * 10000 + width)
    weight = random.normal(1, 0.2, width).astype(np.float32)
    for size in (3, 3e-3):  # epsilon matters to the second alone
        x = random.normal(0, size, (rows, width)).astype(np.float32)
        out = runner(device).norm(x, weight, 1e-5)
        assert error(out, rms(x, weight, 1e-5)) <= 1e-12, size
    assert not runner(device).norm(np.zeros_like(x), weight, 1e-5).any()


def check_embed(device: str, format: str, columns: int) -> None:
    random = np.random.default_rng(columns)
    table, decoded, _ = matrix(random, 19, columns, format)
    tokens = np.array([3, 18, 0, 3, 7], np.int32)
    for is_head_too in (False, True):
        out = runner(device).embed(table, tokens, 1.0, is_head_too)
        assert_same_bits(out, decoded[tokens].astype(np.float32))
        scaled = runner(device).embed(table, tokens, 2.5, is_head_too)
        assert error(scaled, 2.5 * decoded[tokens]) <= 1e-13


def check_embed_random_bits(device: str, format: str) -> None:
    """Bit for bit the decoder's values, whichever layout a device keeps the table in."""
    kind = tensor_type(format)
    columns = 5 * kind.elements
    rows = 37
    random = np.random.default_rng(kind.id)
    blocks = random.integers(0, 256, rows * kind.row_bytes(columns), np.uint8)
    decoded = reference.dequantize(blocks, format).reshape(rows, columns).astype(np.float32)
    table = _quantloom.OperationMatrix(blocks, kind.id, columns, None)
    tokens = random.integers(0, rows, 50).astype(np.int32)
    for is_head_too in (False, True):
        out = runner(device).embed(table, tokens, 1.0, is_head_too)
        assert_same_bits(out, decoded[tokens])


def check_projections(device: str, precision: str, format: str, tokens: int) -> None:
    """norm_project with three matrices, project_add and norm_gate_up on one set of inputs.

    With an outlier column, as real models have, beside which all others are little; one token,
    which has no other beside it, also without.
    """
    for outlier in (300, 1) if tokens == 1 else (300,):
        random = np.random.default_rng(tokens)
        x = random.normal(0, 1, (tokens, 512)).astype(np.float32)
        x[::2, 5] *= outlier
        check_projections_of(x, random, device, precision, format)


def check_projections_of(
    x: Array, random: np.random.Generator, device: str, precision: str, format: str
) -> None:
    tokens, columns = x.shape
    bound = 1e-6 if precision == "exact" else 5e-4
    weight = random.normal(1, 0.2, columns).astype(np.float32)
    normed = rms(x, weight, 1e-6)
    run = runner(device, precision)
    made = [matrix(random, rows, columns, format, bias=True) for rows in (96, 33, 33)]
    outs = run.norm_project(x, weight, 1e-6, [m[0] for m in made])
    for out, (_, decoded, bias) in zip(outs, made, strict=True):
        assert apart(out, normed @ decoded.T + bias) <= bound

    down, decoded, bias = matrix(random, 77, columns, format, bias=True)
    residual = random.normal(0, 1, (tokens, 77)).astype(np.float32)
    out = run.project_add(x, down, residual)
    assert apart(out, x.astype(np.float64) @ decoded.T + bias + residual) <= bound
    out = run.project(x, down)
    assert apart(out, x.astype(np.float64) @ decoded.T + bias) <= bound

    gate, gate_decoded, _ = matrix(random, 160, columns, format)
    up, up_decoded, _ = matrix(random, 160, columns, format)
    out = run.norm_gate_up(x, weight, 1e-6, gate, up, "silu")
    pre = normed @ gate_decoded.T
    assert apart(out, pre / (1 + np.exp(-pre)) * (normed @ up_decoded.T)) <= 4 * bound


def check_feed_forward(device: str, format: str, tokens: int, length: int) -> None:
    """Parts of the hidden row that are far larger than others, and tokens of every size."""
    random = np.random.default_rng(tokens)
    width = 512
    residual = random.normal(0, 1, (tokens, width)).astype(np.float32)
    # The norm takes a token's size away; only what lies below epsilon is small behind it.
    if tokens > 2:
        residual[tokens // 2] = 0
        residual[tokens // 3] *= 1e-12
    weight = random.normal(1, 0.2, width).astype(np.float32)
    sizes = 10.0 ** (np.arange(length) // 48 % 5 - 2)
    gate, gate_decoded, _ = matrix(random, length, width, format)
    up, up_decoded, _ = matrix(random, length, width, format, scale=sizes)
    down, down_decoded, bias = matrix(random, width, length, format, bias=True)
    out = runner(device).feed_forward(residual, weight, 1e-6, gate, up, down, "silu")
    normed = rms(residual, weight, 1e-6)
    hidden = activated(normed @ gate_decoded.T, "silu") * (normed @ up_decoded.T)
    wanted = hidden @ down_decoded.T
    assert np.square(wanted).sum() > 1e-3 * np.square(residual + bias).sum()
    for token in range(tokens):
        added = out[token] - residual[token].astype(np.float64) - bias
        room = 1e-13 * np.square(wanted[token] + bias + residual[token]).sum()
        missed = np.square(added - wanted[token]).sum()
        assert missed <= 4e-6 * np.square(wanted[token]).sum() + room, token
    for value in (np.nan, np.inf):
        bad = residual.copy()
        bad[tokens - 1, 3] = value
        found = runner(device).feed_forward(bad, weight, 1e-6, gate, up, down, "silu")
        assert not np.isfinite(found[-1]).any()
        np.testing.assert_array_equal(found[:-1], out[:-1])


def check_mixed_projections(
    device: str, formats: list[str], rows: list[int], columns: int, tokens: int
) -> None:
    random = np.random.default_rng(tokens)
    x = random.normal(0, 1, (tokens, columns)).astype(np.float32)
    weight = random.normal(1, 0.2, columns).astype(np.float32)
    normed = rms(x, weight, 1e-6)
    made = [matrix(random, r, columns, f, bias=True) for r, f in zip(rows, formats, strict=True)]
    run = runner(device)
    for _ in range(2):
        outs = run.norm_project(x, weight, 1e-6, [m[0] for m in made])
        for out, (_, decoded, bias) in zip(outs, made, strict=True):
            assert error(out, normed @ decoded.T + bias) <= 1e-6


def activated(x: np.ndarray, name: str) -> np.ndarray:
    if name == "silu":
        return x / (1 + np.exp(-x))
    if name == "gelu":
        values = [0.5 * v * (1 + float(erf(v / np.sqrt(2)))) for v in x.ravel()]
        return np.array(values).reshape(x.shape)
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def check_gate_up(
    device: str, format: str, activation: str, tokens: int, columns: int = 512
) -> None:
    """Rows and tokens that fill no tile; gates of both signs, and far from zero."""
    random = np.random.default_rng(tokens)
    rows = 533
    x = random.normal(0, 3, (tokens, columns)).astype(np.float32)
    x[tokens // 2] *= 100
    weight = random.normal(1, 0.2, columns).astype(np.float32)
    gate, gate_decoded, _ = matrix(random, rows, columns, format)
    up, up_decoded, _ = matrix(random, rows, columns, format)
    run = runner(device, width=max(columns, 4096))
    out = run.norm_gate_up(x, weight, 1e-6, gate, up, activation)
    normed = rms(x, weight, 1e-6)
    wanted = activated(normed @ gate_decoded.T, activation) * (normed @ up_decoded.T)
    assert out.shape == wanted.shape
    for token in range(tokens):
        assert error(out[token], wanted[token]) <= 4e-6, token


def check_tile_border(device: str, tokens: int) -> None:
    check_projections(device, "exact", "Q4_K", tokens)
    check_gate_up(device, "Q8_0", "silu", tokens, 256)
    check_feed_forward(device, "Q8_0", tokens, 192)


def check_format(device: str, format: str, tokens: int) -> None:
    check_projections(device, "exact", format, tokens)
    check_gate_up(device, format, "silu", tokens, 256)
    check_feed_forward(device, format, tokens, 256)


def check_elementwise(device: str, count: int) -> None:
    random = np.random.default_rng(count)
    a = random.normal(0, 4, count).astype(np.float32)
    b = random.normal(0, 2, count).astype(np.float32)
    x = a.astype(np.float64)
    run = runner(device)
    np.testing.assert_array_equal(run.elementwise("add", a, b), a + b)
    for name in ("silu", "gelu", "gelu_tanh"):
        assert error(run.elementwise(name, a, b), activated(x, name) * b) <= 1e-11, name
    assert error(run.soft_cap(a, 5.0), 5 * np.tanh(x / 5)) <= 1e-11


def erf(x: float) -> float:
    import math

    return math.erf(x)


def rotate(x: Array, table: Array, positions: Array, interleaved: bool) -> Array:
    """RoPE on [tokens, heads, size] with table [capacity, pairs, 2]."""
    out = x.astype(np.float64).copy()
    pairs = table.shape[1]
    cosine = table[positions, :, 0].astype(np.float64)[:, None, :]
    sine = table[positions, :, 1].astype(np.float64)[:, None, :]
    if interleaved:
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    else:
        first, second = slice(0, pairs), slice(pairs, 2 * pairs)
    a, b = out[..., first].copy(), out[..., second].copy()
    out[..., first] = a * cosine - b * sine
    out[..., second] = a * sine + b * cosine
    return out


CACHES: dict[str, npt.DTypeLike] = {"f32": np.float32, "f16": np.float16, "q8_0": "q8_0"}


def check_attention(
    device: str,
    *,
    tokens: int,
    past: int,
    heads: int,
    kv_heads: int,
    size: int,
    cache_type: str = "f16",
    interleaved: bool = False,
    dimensions: int | None = None,
    normed: bool = False,
    window: int = 0,
    soft_cap: float = 0.0,
    chunk: int | None = None,
    spare: int = 5,
) -> None:
    random = np.random.default_rng(tokens * 1000 + past + size)
    capacity = past + tokens + spare
    q = random.normal(0, 1.5, (tokens, heads, size)).astype(np.float32)
    k = random.normal(0, 1.5, (tokens, kv_heads, size)).astype(np.float32)
    v = random.normal(0, 1, (tokens, kv_heads, size)).astype(np.float32)
    past_k = random.normal(0, 1.5, (past, kv_heads, size)).astype(np.float32)
    past_v = random.normal(0, 1, (past, kv_heads, size)).astype(np.float32)
    pairs = (dimensions or size) // 2
    angles = np.outer(np.arange(capacity), 10000.0 ** (-np.arange(pairs) / pairs))
    table = np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32)
    q_norm = random.normal(1, 0.2, size).astype(np.float32) if normed else None
    k_norm = random.normal(1, 0.2, size).astype(np.float32) if normed else None
    scale = size**-0.5
    result = runner(device, head_size=max(size, 128)).attend(
        q, k, v, q_norm, k_norm, 1e-6, table, interleaved, cache_type, capacity,
        chunk or tokens, scale, soft_cap, window, past_k, past_v,
    )  # fmt: skip

    positions = past + np.arange(tokens)
    wanted_q = rms(q, q_norm, 1e-6) if q_norm is not None else q
    wanted_k = rms(k, k_norm, 1e-6) if k_norm is not None else k
    wanted_q = rotate(wanted_q, table, positions, interleaved)
    assert error(result["q"], wanted_q) <= 1e-12
    keys = np.concatenate([past_k, rotate(wanted_k, table, positions, interleaved)])
    values = np.concatenate([past_v, v])
    if cache_type == "f32":
        kept = result["keys"].transpose(1, 0, 2)[: past + tokens]
        assert error(kept, keys) <= 1e-12
        # What was not written is still the poison.
        assert np.isnan(result["keys"].transpose(1, 0, 2)[past + tokens :]).all()
    kind = CACHES[cache_type]
    keys = np.repeat(cached(keys, kind), heads // kv_heads, axis=1)
    values = np.repeat(cached(values, kind), heads // kv_heads, axis=1)
    scores = np.einsum("thd,phd->htp", wanted_q, keys) * scale
    if soft_cap > 0:
        scores = soft_cap * np.tanh(scores / soft_cap)
    seen = np.arange(past + tokens)[None, :]
    visible = seen <= positions[:, None]
    if window > 0:
        visible &= seen > positions[:, None] - window
    scores = np.where(visible[None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    wanted = np.einsum("htp,phd->thd", weights, values)
    # A q8_0 step may round the other way where float32 and float64 keys differ in the last bit.
    bound = 1e-5 if cache_type == "q8_0" else 1e-6
    assert error(result["out"], wanted) <= bound


SAMPLER_DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repetition": 1.0,
    "frequency": 0.0,
    "presence": 0.0,
    "window": 0,
    "bias_tokens": np.zeros(0, np.int32),
    "bias_values": np.zeros(0, np.float32),
    "top_log_probabilities": -1,
}


def sample(
    device: str, logits: Array, *, steps: int = 1, position: int = 8, **options: Any
) -> list[dict[str, Any]]:
    history = np.zeros(position + steps + 8, np.int32)
    history[:position] = np.arange(position) * 3 % len(logits)
    run = runner(device, vocabulary=len(logits))
    found: list[dict[str, Any]] = run.sample(
        logits, history, position, steps, **(SAMPLER_DEFAULTS | options)
    )
    return found


SAMPLER_CASES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 0.8, "seed": 7},
    "hot": {"temperature": 5.0, "seed": 1},
    "top_k": {"temperature": 1.0, "top_k": 40},
    "top_k of one": {"temperature": 1.0, "top_k": 1},
    "top_p": {"temperature": 1.0, "top_p": 0.9},
    "min_p": {"temperature": 1.0, "min_p": 0.05},
    "typical": {"temperature": 1.0, "typical_p": 0.5},
    "chain": {"temperature": 0.9, "top_k": 50, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.8},
    "penalties": {"repetition": 1.3, "frequency": 0.4, "presence": 0.2, "window": 64},
    "penalties, hot": {"temperature": 1.5, "repetition": 0.7, "frequency": -0.4, "window": 3},
    "bias": {
        "bias_tokens": np.array([2, 5, 11], np.int32),
        "bias_values": np.array([-np.inf, 3.0, -2.0], np.float32),
        "temperature": 1.0,
    },
    "log-probabilities": {"temperature": 0.7, "top_log_probabilities": 5},
    "greedy log-probabilities": {"top_log_probabilities": 20},
}


def check_same_choices(device: str, name: str, vocabulary: int) -> None:
    """The device chooses as the CPU does, step for step."""
    random = np.random.default_rng(vocabulary)
    logits = random.normal(0, 3, vocabulary).astype(np.float32)
    logits[: vocabulary // 4] = np.round(logits[: vocabulary // 4])  # ties
    options = SAMPLER_CASES[name]
    mine = sample(device, logits, steps=24, **options)
    theirs = sample("cpu", logits, steps=24, **options)
    for a, b in zip(mine, theirs, strict=True):
        assert (a["status"], a["token"], a["position"]) == (b["status"], b["token"], b["position"])
        assert a["top_tokens"] == b["top_tokens"]
        np.testing.assert_allclose(a["log_probability"], b["log_probability"], atol=2e-6)
        np.testing.assert_allclose(
            a["top_log_probabilities"], b["top_log_probabilities"], atol=2e-6
        )


def check_bad_logits(device: str) -> None:
    logits = np.linspace(-1, 1, 300, dtype=np.float32)
    for bad in (np.nan, np.inf, -np.inf):
        broken = logits.copy()
        broken[[17, 203]] = bad
        for temperature in (0.0, 1.0):
            choice = sample(device, broken, temperature=temperature)[0]
            assert (choice["status"], choice["token"]) == (1, 17)
    choice = sample(
        device,
        logits[:3],
        bias_tokens=np.arange(3, dtype=np.int32),
        bias_values=np.full(3, -np.inf, np.float32),
    )[0]
    assert choice["status"] == 2
