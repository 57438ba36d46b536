"""One token at a time on the GPU: the program of one kernel, and the kernels one by one, against
float64 and passes of many tokens.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantloom
from model.greedy import check_greedy, logprobs_error
from model.test_logits import reference
from operations.checks import CACHES
from operations.products import QUANTIZED
from quantloom import _quantloom, cuda
from quantloom.generation import TokenLogprobs
from synthetic_model import VOCABULARY, Synthetic

# Of a step against the pass of many tokens, which rounds activations to 16 bits.
BOUND = 1.6e-2
# Of a step against a pass of few tokens over the same cache: 4e-4 at most on the emulator. One
# position of 1,100 that a step does not see makes 5e-3.
FEW_BOUND = 1e-3
# Of a step against float64 with the cache's rounding: 1.8e-3 on the emulator, of TQ1_0.
EXACT_BOUND = 2e-3
# Under a sanitizer, which takes seconds a step, fewer (tools/compute_sanitizer.sh).
NEW_TOKENS = int(os.environ.get("QUANTLOOM_TEST_STEPS", "24"))
FEW = 8  # tokens of a pass whose products keep the precision of one token's
LONGEST_IN_FLOAT64 = 2100  # of several layers, of which all but the last hold all scores at once


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def passes_of_few(
    session: quantloom.Session, prompt: list[int], tokens: list[int]
) -> dict[int, TokenLogprobs]:
    """What passes of FEW tokens over the same cache of the prompt give for some of the steps."""
    session.generate(prompt, max_new_tokens=1)  # cuts the cache back to the prompt
    found = {}
    for step in range(FEW, len(tokens), FEW):
        text = [*prompt, *tokens[:step]]
        result = session.generate(text, max_new_tokens=1, ignore_eos=True, logprobs=20)
        assert result.timings.reused_tokens == len(text) - FEW
        assert result.logprobs is not None
        found[step] = result.logprobs[0]
    return found


def error_of(decoded: Sequence[TokenLogprobs], wanted: dict[int, TokenLogprobs]) -> float:
    """Of the likeliest tokens' log-probabilities; of those that both name."""
    pairs = []
    for step, entry in wanted.items():
        table = {candidate.token: candidate.logprob for candidate in decoded[step].top}
        pairs += [(table[c.token], c.logprob) for c in entry.top if c.token in table]
    given, expected = np.array(pairs).T
    return float(np.linalg.norm(given - expected) / np.linalg.norm(expected))


def check(path: Path, length: int, *, bound: float = EXACT_BOUND, **options: Any) -> None:
    prompt = np.random.default_rng(length).integers(0, VOCABULARY, length).tolist()
    # Short prompts in passes of few tokens, whose keys and values are exact enough for EXACT_BOUND.
    chunk = FEW if length <= 10 * FEW else None
    request = {"temperature": 0, "ignore_eos": True, "logprobs": 20}
    with quantloom.load(path, device="cuda", **options) as model:
        runs = []
        for again in (False, True):
            with model.session(prefill_chunk=chunk) as session:
                runs.append(session.generate(prompt, max_new_tokens=NEW_TOKENS, **request))
                if again and chunk is None and NEW_TOKENS > FEW:
                    with_few = passes_of_few(session, prompt, runs[0].tokens)
        first, second = runs
        assert first.tokens == second.tokens
        assert first.logprobs is not None and second.logprobs is not None
        assert first.logprobs == second.logprobs
        sequence = [*prompt, *first.tokens[:-1]]
        logits = np.asarray(model.logits(sequence))
        layers = model.block_count
    found = np.array([entry.logprob for entry in first.logprobs])
    table = log_softmax(logits)[length - 1 :]
    expected = table[np.arange(NEW_TOKENS), first.tokens]
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert not np.isnan(error) and error <= BOUND, error
    if chunk is None and NEW_TOKENS > FEW:
        error = error_of(first.logprobs, with_few)
        assert not np.isnan(error) and error <= FEW_BOUND, error
    kind = CACHES[options.get("cache_type", "f16")]
    # Of longer prompts the keys and values have errors that q8_0 enlarges: 8e-3 after 1,100 tokens.
    if (kind != "q8_0" or chunk == FEW) and (layers == 1 or length <= LONGEST_IN_FLOAT64):
        # The first token's logits are those of the pass over the prompt.
        rows = reference(path, kind).logits(sequence, last=NEW_TOKENS - 1)
        error = logprobs_error(first.logprobs[1:], rows)
        # A q8_0 step that turns over weighs most in a short cache: 3.9e-3 after one token.
        allowed = 3 * bound if kind == "q8_0" else bound
        assert not np.isnan(error) and error <= allowed, error


@pytest.mark.parametrize("format", QUANTIZED)
def test_formats(format: str, tmp_path: Path) -> None:
    recipe = Synthetic(embedding=256, heads=4, head_size=64, feed_forward=768, format=format)
    check(recipe.write(tmp_path), 20)


# As in files of two to three bits: formats with different tables, and one with none, in turn; of
# the same x, too.
def test_tables_of_one_layer(tmp_path: Path) -> None:
    parts = {"attn_q": "IQ2_S", "attn_k": "IQ2_XS", "attn_v": "Q4_K", "attn_output": "IQ3_S"}
    recipe = Synthetic(
        layers=3, embedding=512, heads=8, kv_heads=8, head_size=64, feed_forward=1024, context=256,
        format="IQ3_XXS",
        formats={
            f"blk.{layer}.{name}.weight": format
            for layer in range(3)
            for name, format in parts.items()
        },
    )  # fmt: skip
    check(recipe.write(tmp_path), 70)


# Products of the same x need of it no sums, sums of 32 columns or of 16, also where only the planes
# count quants from another zero than the format.
@pytest.mark.parametrize("parts", list(itertools.permutations(["IQ2_XXS", "TQ1_0", "IQ1_M"])))
def test_sums_of_x(parts: tuple[str, ...], tmp_path: Path) -> None:
    recipe = Synthetic(
        layers=2, embedding=512, heads=8, kv_heads=8, head_size=64, feed_forward=768, format="Q6_K",
        formats={
            f"blk.{layer}.{name}.weight": format
            for layer in range(2)
            for name, format in zip(("attn_q", "attn_k", "attn_v"), parts, strict=True)
        },
    )  # fmt: skip
    check(recipe.write(tmp_path), 20)


# The longest rows of a model, which fill the place for x; once with one more product before.
@pytest.mark.parametrize("format", ["IQ1_M", "TQ2_0", "Q2_K"])
def test_sums_of_long_rows(format: str, tmp_path: Path) -> None:
    recipe = Synthetic(
        layers=3, embedding=256, heads=4, head_size=64, feed_forward=5376, format="Q6_K",
        formats={"blk.1.attn_v.weight": "Q8_0"}
        | {f"blk.{layer}.ffn_down.weight": format for layer in range(3)},
    )  # fmt: skip
    check(recipe.write(tmp_path), 20)


def launches_of_a_first_token(path: Path, cache_type: str) -> int:
    """Of the pass over the prompt and of a step, whose graph is made."""
    with (
        quantloom.load(path, device="cuda", cache_type=cache_type) as model,
        model.session() as session,
        session.stream(list(range(9)), max_new_tokens=4, ignore_eos=True) as stream,
    ):
        before = _quantloom.cuda_counters()["launches"]
        next(iter(stream))
        return int(_quantloom.cuda_counters()["launches"] - before)


def test_every_format_in_one_program(tmp_path: Path) -> None:
    """What explain() says of Hopper GPUs is so: the layers of a token are one launch, where an F32
    cache, which the program does not read, makes them one for each operation.
    """
    layers = 4
    names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    tensors = [f"blk.{layer}.{name}.weight" for layer in range(layers) for name in names]
    formats = dict(zip(tensors, itertools.cycle(QUANTIZED), strict=False))
    assert set(formats.values()) == set(QUANTIZED)
    recipe = Synthetic(
        layers=layers, embedding=256, heads=4, head_size=64, feed_forward=768, format="Q4_K",
        formats=formats,
    )  # fmt: skip
    path = recipe.write(tmp_path)
    check(path, 20)
    with quantloom.load(path, device="cuda") as model:
        kernels = {t.name: t.kernel for t in model.explain().tensors}
    in_program = ["decode program" in kernels[name] for name in formats]
    assert all(in_program) if cuda.devices()[0].capability[0] == 9 else not any(in_program)
    fewer = launches_of_a_first_token(path, "f32") - launches_of_a_first_token(path, "f16")
    assert fewer >= 4 * layers if all(in_program) else fewer == 0


def mixed(layers: int, rest: dict[str, str]) -> dict[str, str]:
    """Formats as in files named Q4_K_M, whose most sensitive tensors are Q6_K."""
    names = [f"blk.{layer}.{name}" for layer in range(layers) for name in ("attn_v", "ffn_down")]
    return {f"{name}.weight": "Q6_K" for name in names} | rest


LIKE_REAL = {
    "8B": Synthetic(
        layers=3, embedding=512, heads=8, kv_heads=2, head_size=128, feed_forward=1024, context=256,
        format="Q4_K", formats=mixed(3, {"output.weight": "Q6_K"}),
    ),
    "1B, tied": Synthetic(
        layers=3, embedding=256, heads=8, kv_heads=2, head_size=64, feed_forward=768, context=256,
        tied=True, format="Q4_K", formats=mixed(3, {"token_embd.weight": "Q6_K"}),
    ),
    "qwen3 Q4_K, tied": Synthetic(
        architecture="qwen3", layers=2, embedding=256, heads=4, kv_heads=2, head_size=128,
        feed_forward=768, context=256, tied=True, qk_norm=True, format="Q4_K",
    ),
    "Q6_K": Synthetic(
        layers=2, embedding=256, heads=4, kv_heads=4, head_size=64, feed_forward=768, context=256,
        format="Q6_K",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LIKE_REAL)
def test_200_greedy_tokens(kind: str, tmp_path: Path) -> None:
    """Float64's tokens and logits, from an F16 cache that the reference does not round."""
    path = LIKE_REAL[kind].write(tmp_path)
    prompt = list(range(FEW))
    with quantloom.load(path, device="cuda") as model:
        result = model.generate(prompt, max_new_tokens=200, ignore_eos=True, logprobs=20)
    assert len(result.tokens) == 200 and result.logprobs is not None
    rows = reference(path).logits(prompt + result.tokens)[len(prompt) - 1 : -1]
    error = logprobs_error(result.logprobs, rows)
    assert not np.isnan(error) and error <= EXACT_BOUND, error
    check_greedy(result.tokens, rows, EXACT_BOUND)
    if cuda.devices()[0].capability[0] == 9:
        # By the program: with a cache that it does not read there are at least four launches more
        # for each layer.
        fewer = launches_of_a_first_token(path, "f32") - launches_of_a_first_token(path, "f16")
        assert fewer >= 4 * LIKE_REAL[kind].layers


# What a block counts through a launch, batches of sums and stages of weights, goes beyond 256.
@pytest.mark.slow_emulated
def test_many_layers(tmp_path: Path) -> None:
    recipe = Synthetic(
        layers=72, embedding=256, heads=4, head_size=64, feed_forward=512, context=64, format="Q8_0"
    )
    check(recipe.write(tmp_path), 12, bound=4e-3)  # 2.8e-3 on the emulator


@pytest.mark.slow_emulated
def test_a_thousand_greedy_tokens(tmp_path: Path) -> None:
    recipe = Synthetic(
        embedding=256, heads=4, head_size=64, feed_forward=768, context=1024, format="Q4_K"
    )
    path = recipe.write(tmp_path)
    prompt = list(range(8))
    with quantloom.load(path, device="cuda") as model:
        tokens = model.generate(prompt, max_new_tokens=1000, temperature=0, ignore_eos=True).tokens
        again = model.generate(prompt, max_new_tokens=1000, temperature=0, ignore_eos=True).tokens
    assert len(tokens) == 1000 and tokens == again
    with quantloom.load(path, device="cpu") as model:
        logits = np.asarray(model.logits([*prompt, *tokens[:-1]]))[len(prompt) - 1 :]
    behind = logits.max(-1) - logits[np.arange(1000), tokens]
    # Another token than the CPU's only where its best two lie closer than what both may round.
    allowed = BOUND * np.linalg.norm(logits, axis=-1) / np.sqrt(logits.shape[-1])
    assert not np.isnan(behind).any() and (behind <= allowed).all(), behind.max()
    assert np.count_nonzero(behind) <= 20


# As in files of mixed types: products of the same x in several formats, which blocks share out by
# products or by strips, the second with more strips than the first; and an odd number of layers.
@pytest.mark.parametrize(
    ("heads", "kv_heads", "others"),
    [
        (8, 2, ("attn_v", "ffn_down")),
        (8, 8, ("attn_v", "ffn_down")),
        (4, 4, ("attn_k", "attn_v")),
    ],
)
def test_formats_of_one_layer(
    heads: int, kv_heads: int, others: tuple[str, ...], tmp_path: Path
) -> None:
    recipe = Synthetic(
        layers=3, embedding=512, heads=heads, kv_heads=kv_heads, head_size=64, feed_forward=1024,
        context=256, format="Q4_K",
        formats={
            f"blk.{layer}.{name}.weight": format
            for layer, format in ((0, "Q6_K"), (2, "Q8_0"))
            for name in others
        },
    )  # fmt: skip
    check(recipe.write(tmp_path), 70)


# Then the up's product is a step of its own, which reads the gate's; with few rows on other blocks
# than it, and with many more bytes in one of the two.
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize(
    ("gate", "up", "feed_forward"),
    [("Q4_K", "Q6_K", 768), ("Q8_0", "IQ2_XXS", 4096), ("IQ3_S", "IQ4_XS", 512)],
)
def test_gate_and_up_of_two_formats(
    gate: str, up: str, feed_forward: int, architecture: str, tmp_path: Path
) -> None:
    recipe = Synthetic(
        architecture=architecture, layers=3, embedding=256, heads=4, head_size=64,
        feed_forward=feed_forward, format="Q5_K", qk_norm=architecture == "qwen3",
        formats={
            f"blk.{layer}.ffn_{name}.weight": format
            for layer in range(2)
            for name, format in (("gate", gate), ("up", up))
        },
    )  # fmt: skip
    path = recipe.write(tmp_path)
    check(path, 20)
    if cuda.devices()[0].capability[0] == 9:
        fewer = launches_of_a_first_token(path, "f32") - launches_of_a_first_token(path, "f16")
        assert fewer >= 3 * 4


# The program reads a head's cache in one to sixteen parts.
@pytest.mark.parametrize(
    "length",
    [
        *(1, 127, 128, 300, 600),
        *(pytest.param(length, marks=pytest.mark.slow_emulated) for length in (1100, 2040, 2100)),
    ],
)
@pytest.mark.parametrize("cache_type", ["f16", "q8_0"])
def test_context_lengths(length: int, cache_type: str, tmp_path: Path) -> None:
    recipe = Synthetic(
        embedding=256, heads=8, head_size=64, feed_forward=512, context=2304, format="Q8_0"
    )
    check(recipe.write(tmp_path), length, cache_type=cache_type)


# Beyond 33,792 positions the attention kernel takes over.
@pytest.mark.slow_emulated
@pytest.mark.parametrize("length", [5000, 33780])
@pytest.mark.parametrize("head_size", [64, 128])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cache_type", ["f16", "q8_0"])
def test_long_contexts(
    cache_type: str, layers: int, head_size: int, length: int, tmp_path: Path
) -> None:
    context = 34304
    recipe = Synthetic(
        layers=layers, embedding=256, heads=8, kv_heads=2, head_size=head_size, feed_forward=512,
        context=context, format="Q8_0",
    )  # fmt: skip
    check(recipe.write(tmp_path), length, cache_type=cache_type, context_length=context)


@pytest.mark.parametrize("length", [40, 300])
@pytest.mark.parametrize("cache_type", ["f16", "q8_0"])
def test_window_and_soft_cap(length: int, cache_type: str, tmp_path: Path) -> None:
    recipe = Synthetic(
        embedding=256, heads=8, head_size=128, feed_forward=256, context=512, format="Q8_0",
        keys={"attention.sliding_window": 150, "attn_logit_softcapping": 2.0},
    )  # fmt: skip
    check(recipe.write(tmp_path), length, cache_type=cache_type)


# With one key head its cache is read in up to 32 parts, of 32 positions at least.
@pytest.mark.parametrize("length", [300, 600, pytest.param(1100, marks=pytest.mark.slow_emulated)])
@pytest.mark.parametrize("cache_type", ["f16", "q8_0"])
def test_heads_of_one_key_head(cache_type: str, length: int, tmp_path: Path) -> None:
    recipe = Synthetic(
        embedding=256, heads=6, kv_heads=1, head_size=64, feed_forward=256, context=1152,
        format="Q8_0",
    )  # fmt: skip
    check(recipe.write(tmp_path), length, cache_type=cache_type)


@pytest.mark.parametrize("head_size", [32, 64, 96, 128])
@pytest.mark.parametrize("heads", [2, 6, 18])
def test_heads(heads: int, head_size: int, tmp_path: Path) -> None:
    recipe = Synthetic(
        architecture="qwen3", embedding=256, heads=heads, head_size=head_size, feed_forward=256,
        context=256, qk_norm=True, format="Q8_0",
    )  # fmt: skip
    check(recipe.write(tmp_path), 150)
