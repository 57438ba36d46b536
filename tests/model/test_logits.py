"""Logits against the float64 forward pass: every shared model, every kind of architecture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import quantloom
from quantloom.reference import ReferenceModel
from synthetic_model import VOCABULARY, Synthetic

BOUND = 2e-3  # relative error of the logits in "exact"

SHARED = [
    "stories260K-f16",
    "stories260K-f32",
    "stories260K-q4_0",
    "stories260K-q8_0",
    "stories260K-pad256-iq3_s",
    "stories260K-pad256-iq4_xs",
    "stories260K-pad256-q2_k",
    "stories260K-pad256-q3_k_m",
    "stories260K-pad256-q4_k_m",
    "stories260K-pad256-q5_k_m",
    "stories260K-pad256-q6_k",
    "stories260K-pad256-tq1_0",
    "stories260K-pad256-tq2_0",
]

LLAMA3_FACTORS = np.array([1, 1, 1.5, 2, 4, 8, 8, 8], np.float32)
YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 32,
    "rope.freq_base": 50000.0,
}
ALL_BIASES = (
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
)

KINDS = {
    "llama": Synthetic(),
    "llama tied": Synthetic(tied=True),
    "llama all heads their own keys": Synthetic(kv_heads=4),
    "llama one key head": Synthetic(kv_heads=1),
    "llama all biases": Synthetic(biases=ALL_BIASES),
    "llama-3 factors": Synthetic(
        keys={"rope.freq_base": 500000.0}, tensors={"rope_freqs.weight": LLAMA3_FACTORS}
    ),
    "llama linear": Synthetic(
        keys={"rope.scaling.type": "linear", "rope.scaling.factor": 2.5},
    ),
    "llama a factor without a type": Synthetic(keys={"rope.scaling.factor": 2.5}),
    "llama the factor's older name": Synthetic(keys={"rope.scale_linear": 2.5}),
    "llama both names": Synthetic(keys={"rope.scale_linear": 5.0, "rope.scaling.factor": 2.5}),
    "llama scaled by none": Synthetic(
        keys={"rope.scaling.type": "none", "rope.scaling.factor": 2.5},
    ),
    "llama yarn": Synthetic(keys=YARN),
    "llama yarn over its context": Synthetic(
        context=64, keys=YARN, drop=("rope.scaling.original_context_length",)
    ),
    "llama yarn that shrinks": Synthetic(keys={**YARN, "rope.scaling.factor": 0.5}),
    "llama yarn without extrapolation": Synthetic(
        keys={**YARN, "rope.scaling.yarn_ext_factor": 0.0}
    ),
    "llama yarn, the key that is not read": Synthetic(
        keys={**YARN, "rope.scaling.yarn_attn_factor": 1.25}
    ),
    "llama yarn, its own constants": Synthetic(
        keys={
            **YARN,
            "rope.scaling.yarn_ext_factor": 0.5,
            "rope.scaling.attn_factor": 1.25,
            "rope.scaling.yarn_beta_fast": 0.5,
            "rope.scaling.yarn_beta_slow": 0.1,
        }
    ),
    "llama partial rope": Synthetic(keys={"rope.dimension_count": 8}),
    "mistral with a window": Synthetic(kv_heads=1, keys={"attention.sliding_window": 5}),
    "llama attention scale": Synthetic(keys={"attention.scale": 0.5}),
    "llama by default": Synthetic(
        kv_heads=4,
        drop=("attention.head_count_kv", "attention.key_length", "attention.value_length"),
    ),
    "llama soft caps": Synthetic(
        keys={"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
    ),
    "qwen2": Synthetic("qwen2", biases=("attn_q", "attn_k", "attn_v"), tied=True),
    "qwen2 yarn": Synthetic("qwen2", biases=("attn_q", "attn_k", "attn_v"), keys=YARN),
    "qwen3, wide heads": Synthetic("qwen3", qk_norm=True, head_size=32),
    "qwen3 epsilon": Synthetic(
        "qwen3", qk_norm=True, keys={"attention.layer_norm_rms_epsilon": 0.25}
    ),
    "qwen3 linear": Synthetic(
        "qwen3",
        qk_norm=True,
        tied=True,
        keys={"rope.scaling.type": "linear", "rope.scaling.factor": 3.0},
    ),
    "llama Q8_0": Synthetic(format="Q8_0"),
    "qwen3 Q4_K": Synthetic(
        "qwen3", qk_norm=True, embedding=256, heads=4, head_size=64, feed_forward=256, format="Q4_K"
    ),
}


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """NaN where a value is NaN, which passes no `error <= bound`."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_a_nan_is_no_small_error() -> None:
    assert not (relative_error(np.array([1.0, np.nan]), np.ones(2)) <= 1.0)


def reference(path: Path, cache: type = np.float64) -> ReferenceModel:
    with quantloom.open(path) as file:
        return ReferenceModel(file, cache)


def tokens_for(count: int) -> list[int]:
    return np.random.default_rng(5).integers(0, VOCABULARY, count).tolist()


@pytest.fixture(scope="module")
def story(shared_data: Path) -> list[int]:
    ids = json.loads((shared_data / "models" / "stories260K-greedy.json").read_text())
    return [*ids["prompt_ids"], *ids["greedy_ids"][:60]]


@pytest.mark.parametrize("name", SHARED)
def test_shared_models(name: str, shared_data: Path, story: list[int]) -> None:
    path = shared_data / "models" / f"{name}.gguf"
    with quantloom.load(path, device="cpu", cache_type="f32") as model:
        error = relative_error(model.logits(story), reference(path).logits(story))
        assert error <= BOUND / 2, error
    # An F16 cache rounds keys and values, which moves the float64 pass itself by up to 2.2e-3
    # (the ternary files): here the reference rounds them too.
    with quantloom.load(path, device="cpu", cache_type="f16") as model:
        error = relative_error(model.logits(story), reference(path, np.float16).logits(story))
        assert error <= BOUND, error


@pytest.mark.parametrize("kind", KINDS)
def test_architectures(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind].write(tmp_path)
    tokens = tokens_for(40)
    expected = reference(path).logits(tokens)
    assert expected.std() > 0.3
    quantized = KINDS[kind].format != "F32"
    with quantloom.load(path, device="cpu", cache_type="f32") as model:
        found = model.logits(tokens)
        error = relative_error(found, expected)
        assert error <= (3e-4 if quantized else 2e-6), error
    with quantloom.load(path, device="cpu") as model:
        error = relative_error(model.logits(tokens), expected)
        assert error <= BOUND, error


# Each key that a model is computed by and no shape shows, in a kind whose logits it moves.
KEYS = {
    "attention.layer_norm_rms_epsilon": "qwen3 epsilon",
    "attention.scale": "llama attention scale",
    "attention.sliding_window": "mistral with a window",
    "attn_logit_softcapping": "llama soft caps",
    "final_logit_softcapping": "llama soft caps",
    "rope.dimension_count": "llama partial rope",
    "rope.freq_base": "llama-3 factors",
    "rope.scale_linear": "llama the factor's older name",
    "rope.scaling.attn_factor": "llama yarn, its own constants",
    "rope.scaling.factor": "llama a factor without a type",
    "rope.scaling.original_context_length": "llama yarn",
    "rope.scaling.type": "llama yarn",
    "rope.scaling.yarn_beta_fast": "llama yarn, its own constants",
    "rope.scaling.yarn_beta_slow": "llama yarn, its own constants",
    "rope.scaling.yarn_ext_factor": "llama yarn, its own constants",
}


@pytest.mark.parametrize("key", KEYS)
def test_each_key_matters(key: str, tmp_path: Path) -> None:
    """As below, of keys: an engine that reads one otherwise is found by test_architectures."""
    recipe = KINDS[KEYS[key]]
    ignored = dict(recipe.keys)
    del ignored[key]
    tokens = tokens_for(40)
    expected = reference(recipe.write(tmp_path)).logits(tokens)
    without = reference(replace(recipe, keys=ignored).write(tmp_path)).logits(tokens)
    assert relative_error(without, expected) > 10 * BOUND


@pytest.mark.parametrize("kind", ["llama", "qwen2 yarn", "qwen3, wide heads"])
def test_each_kind_of_part_matters(kind: str, tmp_path: Path) -> None:
    """The bounds above would not hold with a part left out: the reference itself shows it."""
    path = KINDS[kind].write(tmp_path)
    tokens = tokens_for(40)
    model = reference(path)
    expected = model.logits(tokens)
    model.side_by_side = not model.side_by_side
    assert relative_error(model.logits(tokens), expected) > 10 * BOUND
    model.side_by_side = not model.side_by_side
    for name in [n for n in model.weights if n.endswith((".bias", "_q_norm.weight"))]:
        kept = model.weights[name]
        model.weights[name] = np.zeros_like(kept)
        assert relative_error(model.logits(tokens), expected) > BOUND
        model.weights[name] = kept


def test_cache_types(tmp_path: Path) -> None:
    path = Synthetic(head_size=32).write(tmp_path)
    tokens = tokens_for(100)
    expected = reference(path).logits(tokens)
    bounds = {"f32": 2e-6, "f16": 1e-3, "q8_0": 2e-2}
    sizes = {}
    for cache_type, bound in bounds.items():
        with quantloom.load(path, device="cpu", cache_type=cache_type) as model:
            error = relative_error(model.logits(tokens), expected)
            assert error <= bound, (cache_type, error)
            sizes[cache_type] = model.cache_bytes
    assert sizes["f32"] > sizes["f16"] > sizes["q8_0"]


def test_q8_0_cache_needs_heads_of_whole_blocks(tmp_path: Path) -> None:
    path = Synthetic(head_size=16).write(tmp_path)
    with pytest.raises(quantloom.InvalidArgument, match="multiple of 32; this model's is 16"):
        quantloom.load(path, device="cpu", cache_type="q8_0")


@pytest.mark.parametrize("chunk", [1, 2, 7, 32, 33, 64])
def test_chunks_do_not_matter(chunk: int, tmp_path: Path) -> None:
    path = Synthetic().write(tmp_path)
    tokens = tokens_for(64)
    with quantloom.load(path, device="cpu", cache_type="f32") as model:
        whole = model.logits(tokens)
        with model.session(prefill_chunk=chunk) as session:
            error = relative_error(session.logits(tokens), whole)
            assert error <= 2e-6, error


def test_threads_do_not_change_a_bit(tmp_path: Path) -> None:
    path = Synthetic(format="Q8_0").write(tmp_path)
    tokens = tokens_for(30)
    found = []
    for threads in (1, 2, 3):
        with quantloom.load(path, device="cpu", threads=threads) as model:
            found.append(model.logits(tokens))
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_fast_precision_stays_near(tmp_path: Path) -> None:
    path = Synthetic(format="Q8_0", embedding=256, feed_forward=256).write(tmp_path)
    tokens = tokens_for(30)
    expected = reference(path).logits(tokens)
    with quantloom.load(path, device="cpu", precision="fast") as model:
        error = relative_error(model.logits(tokens), expected)
    assert error <= 3e-2, error


def test_full_context(tmp_path: Path) -> None:
    path = Synthetic(context=48).write(tmp_path)
    tokens = tokens_for(49)
    with quantloom.load(path, device="cpu", cache_type="f32") as model:
        assert model.context_length == model.trained_context_length == 48
        error = relative_error(model.logits(tokens[:48]), reference(path).logits(tokens[:48]))
        assert error <= 2e-6, error
        with pytest.raises(quantloom.ContextFull, match="49 tokens, more than the context of 48"):
            model.logits(tokens)
