"""The forward pass of llama, qwen2 and qwen3 models in float64 NumPy, over the decoded weights.

Slow and plain: every matrix is decoded by the NumPy decoders, every position is computed at once,
nothing is cached. It is what the fast code is measured against.

Sources: Llama 2 (arXiv 2307.09288), Qwen2 (arXiv 2407.10671), Qwen3 (arXiv 2505.09388),
grouped-query attention (arXiv 2305.13245), SwiGLU (arXiv 2002.05202), RoPE (arXiv 2104.09864),
linear scaling (arXiv 2306.15595), YaRN (arXiv 2309.00071), and for names and shapes the GGUF
specification. Files of llama models hold the rows of Q and K permuted, so that the two halves of a
rotated pair stand side by side; those of qwen models hold them half the rotated width apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from quantloom.errors import ModelError
from quantloom.reference.decode import dequantize

if TYPE_CHECKING:
    from quantloom.file import File

Array = npt.NDArray[np.float64]

PAIRS_SIDE_BY_SIDE = {"llama": True, "qwen2": False, "qwen3": False}


def rms_norm(x: Array, weight: Array, epsilon: float) -> Array:
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis."""
    mean: Array = np.mean(x * x, axis=-1, keepdims=True)
    return x / np.sqrt(mean + epsilon) * weight


def softmax(x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis."""
    e: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    total: Array = e.sum(axis=-1, keepdims=True)
    return e / total


def cached(x: Array, kind: npt.DTypeLike) -> Array:
    """What a cache of a type gives back of x [..., head_size]: a float dtype, or "q8_0".

    "q8_0" keeps groups of 32 as integers up to 127 times a float16 step, chosen in float32.
    """
    if kind != "q8_0":
        return x.astype(kind).astype(np.float64)
    groups = x.astype(np.float32).reshape(*x.shape[:-1], -1, 32)
    step = np.abs(groups).max(axis=-1, keepdims=True) / np.float32(127)
    quants = np.round(groups / np.where(step > 0, step, 1))
    kept: Array = quants * step.astype(np.float16).astype(np.float64)
    return kept.reshape(x.shape)


class ReferenceModel:
    """A model's weights in float64, and its forward pass.

    Args:
        file: an open GGUF file; it is only read here.
        cache_dtype: what keys and values are rounded to before attention reads them, as a cache of
            that type does: a float dtype, of which float64 rounds nothing, or "q8_0".

    Raises:
        ModelError: its architecture is not in the table above, or a key or tensor is missing.
    """

    def __init__(self, file: File, cache_dtype: npt.DTypeLike = np.float64) -> None:
        architecture = str(file.metadata.get("general.architecture"))
        if architecture not in PAIRS_SIDE_BY_SIDE:
            raise ModelError(f"no reference for architecture {architecture!r}")
        self._keys = {
            key: file.metadata[key] for key in file.metadata if key.startswith(architecture + ".")
        }
        self._cache_dtype = cache_dtype
        self._prefix = architecture + "."
        self.side_by_side = PAIRS_SIDE_BY_SIDE[architecture]
        self.weights: dict[str, Array] = {
            name: dequantize(tensor.bytes, tensor.format).reshape(tensor.shape).astype(np.float64)
            for name, tensor in file.tensors.items()
        }
        embedding = int(self.key("embedding_length"))
        self.layers = int(self.key("block_count"))
        self.heads = int(self.key("attention.head_count"))
        self.kv_heads = int(self.key("attention.head_count_kv", self.heads))
        self.head_size = int(self.key("attention.key_length", embedding // self.heads))
        self.epsilon = float(self.key("attention.layer_norm_rms_epsilon"))
        self.window = int(self.key("attention.sliding_window", 0))
        self.rope_dimensions = int(self.key("rope.dimension_count", self.head_size))
        self.frequencies, self.magnitude = self._rope_frequencies()

    def key(self, name: str, default: Any = None) -> Any:
        """A hyperparameter of the file."""
        value = self._keys.get(self._prefix + name, default)
        if value is None:
            raise ModelError(f"metadata key {self._prefix + name!r} is missing")
        return value

    def _rope_frequencies(self) -> tuple[Array, float]:
        """Radians per position of each pair, and the factor on cosine and sine."""
        n = self.rope_dimensions
        base = float(self.key("rope.freq_base", 10000.0))
        plain = base ** (-np.arange(0, n, 2) / n)
        if "rope_freqs.weight" in self.weights:
            plain = plain / self.weights["rope_freqs.weight"]
        # Older files give a factor without a type, or under its older name: both are linear.
        kind = str(self.key("rope.scaling.type", "linear"))
        older = self.key("rope.scale_linear", 1.0)
        factor = float(self.key("rope.scaling.factor", older)) if kind != "none" else 1.0
        magnitude = float(self.key("rope.scaling.attn_factor", 1.0))
        extrapolation = float(self.key("rope.scaling.yarn_ext_factor", 1.0))
        if kind != "yarn" or extrapolation == 0:
            return plain / factor, magnitude
        trained = self.key("context_length")
        original = float(self.key("rope.scaling.original_context_length", trained))

        def pair_turning(turns: float) -> float:
            return float(n * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(base)))

        fast = float(self.key("rope.scaling.yarn_beta_fast", 32.0))
        slow = float(self.key("rope.scaling.yarn_beta_slow", 1.0))
        low = max(np.floor(pair_turning(fast)), 0)
        high = min(np.ceil(pair_turning(slow)), n - 1)
        ramp = np.clip((np.arange(n // 2) - low) / max(high - low, 0.001), 0, 1)
        kept = (1 - ramp) * extrapolation
        scaled = plain / factor * (1 - kept) + plain * kept
        return scaled, magnitude * (1 + 0.1 * max(0.0, float(np.log(factor))))

    def rotate(self, x: Array) -> Array:
        """RoPE of x [tokens, heads, head_size], whose first token stands at position 0."""
        n = self.rope_dimensions
        angles = np.outer(np.arange(len(x)), self.frequencies)[:, None, :]
        cosine, sine = np.cos(angles) * self.magnitude, np.sin(angles) * self.magnitude
        first = np.s_[..., 0:n:2] if self.side_by_side else np.s_[..., 0 : n // 2]
        second = np.s_[..., 1:n:2] if self.side_by_side else np.s_[..., n // 2 : n]
        out: Array = x.copy()
        out[first] = x[first] * cosine - x[second] * sine
        out[second] = x[first] * sine + x[second] * cosine
        return out

    def linear(self, x: Array, name: str) -> Array:
        """x times the transpose of a matrix, plus its bias where there is one."""
        weight = self.weights[name + ".weight"]
        bias = self.weights.get(name + ".bias", np.zeros(len(weight)))
        out: Array = x @ weight.T + bias
        return out

    def attention(self, x: Array, block: str, last: int | None = None) -> Array:
        """Self-attention of x [tokens, embedding], each token over itself and those before it.

        With `last`, of the last so many tokens alone.
        """
        tokens = len(x)
        q = self.linear(x, block + "attn_q").reshape(tokens, self.heads, self.head_size)
        k = self.linear(x, block + "attn_k").reshape(tokens, self.kv_heads, self.head_size)
        v = self.linear(x, block + "attn_v").reshape(tokens, self.kv_heads, self.head_size)
        if block + "attn_q_norm.weight" in self.weights:
            q = rms_norm(q, self.weights[block + "attn_q_norm.weight"], self.epsilon)
            k = rms_norm(k, self.weights[block + "attn_k_norm.weight"], self.epsilon)
        q, k = self.rotate(q), self.rotate(k)
        k, v = cached(k, self._cache_dtype), cached(v, self._cache_dtype)
        rows = np.arange(tokens)[-(last or tokens) :]
        q = q[rows]
        group = self.heads // self.kv_heads
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        scale = float(self.key("attention.scale", self.head_size**-0.5))
        scores = np.einsum("qhd,khd->hqk", q, k) * scale
        cap = float(self.key("attn_logit_softcapping", 0.0))
        if cap > 0:
            scores = cap * np.tanh(scores / cap)
        distance = rows[:, None] - np.arange(tokens)[None, :]
        seen = (distance >= 0) & ((distance < self.window) | (self.window == 0))
        mixed = np.einsum("hqk,khd->qhd", softmax(np.where(seen, scores, -np.inf)), v)
        return self.linear(mixed.reshape(len(rows), -1), block + "attn_output")

    def feed_forward(self, x: Array, block: str) -> Array:
        """SwiGLU: down(silu(gate(x)) * up(x))."""
        gate = self.linear(x, block + "ffn_gate")
        silu: Array = gate / (1 + np.exp(-gate))
        return self.linear(silu * self.linear(x, block + "ffn_up"), block + "ffn_down")

    def logits(self, tokens: Sequence[int], last: int | None = None) -> Array:
        """Logits of every position: [tokens, vocabulary]; with `last`, of the last so many."""
        x = self.weights["token_embd.weight"][np.asarray(tokens)]
        for layer in range(self.layers):
            block = f"blk.{layer}."
            norm = self.weights[block + "attn_norm.weight"]
            wanted = last if layer == self.layers - 1 else None
            mixed = self.attention(rms_norm(x, norm, self.epsilon), block, wanted)
            x = x[-len(mixed) :] + mixed
            norm = self.weights[block + "ffn_norm.weight"]
            x = x + self.feed_forward(rms_norm(x, norm, self.epsilon), block)
        x = rms_norm(x, self.weights["output_norm.weight"], self.epsilon)
        head = self.weights.get("output.weight", self.weights["token_embd.weight"])
        logits: Array = x @ head.T
        cap = float(self.key("final_logit_softcapping", 0.0))
        if cap > 0:
            logits = cap * np.tanh(logits / cap)
        return logits

    def greedy(self, tokens: Sequence[int], count: int) -> tuple[list[int], Array]:
        """The `count` likeliest next tokens, one after another, and the logits each came from."""
        sequence, rows = list(tokens), []
        for _ in range(count):
            rows.append(self.logits(sequence)[-1])
            sequence.append(int(rows[-1].argmax()))
        return sequence[len(tokens) :], np.array(rows)
