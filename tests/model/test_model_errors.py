"""Files that are valid GGUF and no model we run: each gives one error that names the cause."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builder import Builder

import quantloom
from quantloom import GGUFError, InvalidArgument, ModelError, QuantloomError
from synthetic_model import VOCABULARY, Synthetic

BASE = Synthetic()
INF = np.array([np.inf] + [1.0] * 63, np.float32)

CASES: dict[str, tuple[Synthetic, type[QuantloomError], str, str | None]] = {
    "unknown architecture": (
        Synthetic("mamba"),
        ModelError,
        r"'mamba' is not supported; supported are llama, qwen2, qwen3",
        "general.architecture",
    ),
    "experts": (
        Synthetic(keys={"expert_count": 8}),
        ModelError,
        r"llama.expert_count.*mixture-of-experts",
        "llama.expert_count",
    ),
    "embedding models": (
        Synthetic(keys={"attention.causal": False}),
        ModelError,
        r"llama.attention.causal",
        "llama.attention.causal",
    ),
    "scaling of an unknown type": (
        Synthetic(keys={"rope.scaling.type": "longrope"}),
        ModelError,
        r"'longrope' is not supported; supported are none, linear, yarn",
        "llama.rope.scaling.type",
    ),
    "missing tensor": (
        Synthetic(drop=("blk.1.ffn_up.weight",)),
        ModelError,
        r"blk\.1\.ffn_up\.weight",
        "blk.1.ffn_up.weight",
    ),
    "missing bias": (
        Synthetic("qwen2"),
        ModelError,
        r"blk\.0\.attn_q\.bias",
        "blk.0.attn_q.bias",
    ),
    "missing norm of the heads": (
        Synthetic("qwen3"),
        ModelError,
        r"blk\.0\.attn_q_norm\.weight",
        "blk.0.attn_q_norm.weight",
    ),
    "tensor of another shape": (
        Synthetic(tensors={"blk.0.attn_k.weight": np.zeros((64, 64), np.float32)}),
        ModelError,
        r"'blk\.0\.attn_k\.weight' has shape 64 x 64; the hyperparameters call for 64 x 32",
        "blk.0.attn_k.weight",
    ),
    "vector as a matrix": (
        Synthetic(tensors={"output_norm.weight": np.zeros((8, 8), np.float32)}),
        ModelError,
        r"'output_norm\.weight' has shape 8 x 8; the hyperparameters call for 64",
        "output_norm.weight",
    ),
    "tensor that no one asked for": (
        Synthetic(tensors={"blk.0.attn_sinks.weight": np.zeros(4, np.float32)}),
        ModelError,
        r"'blk\.0\.attn_sinks\.weight' is not part of a llama model",
        "blk.0.attn_sinks.weight",
    ),
    "layer past the count": (
        Synthetic(layers=2, keys={"block_count": 1}),
        ModelError,
        r"'blk\.1\.[a-z_]+\.weight' is not part",
        None,
    ),
    "type that is only listed": (
        Synthetic(tensors={"blk.0.ffn_norm.weight": np.zeros(64, np.int32)}),
        ModelError,
        r"'blk\.0\.ffn_norm\.weight' has type I32",
        "blk.0.ffn_norm.weight",
    ),
    "vocabulary of another size": (
        Synthetic(keys={"vocab_size": VOCABULARY + 1}),
        ModelError,
        rf"{VOCABULARY} rows, but 'llama.vocab_size' says {VOCABULARY + 1}",
        "token_embd.weight",
    ),
    "tokens of another number": (
        Synthetic(metadata={"tokenizer.ggml.tokens": ["a", "b"]}),
        ModelError,
        rf"{VOCABULARY} rows, but 'tokenizer.ggml.tokens' says 2",
        "token_embd.weight",
    ),
    "infinite weight": (
        Synthetic(tensors={"blk.1.attn_norm.weight": INF}),
        GGUFError,
        r"blk\.1\.attn_norm\.weight",
        "blk.1.attn_norm.weight",
    ),
    "factor of zero": (
        Synthetic(tensors={"rope_freqs.weight": np.zeros(8, np.float32)}),
        ModelError,
        r"rope_freqs\.weight.*above 0",
        "rope_freqs.weight",
    ),
    "heads that do not divide": (
        Synthetic(kv_heads=3),
        ModelError,
        r"attention.head_count_kv.*3 does not divide attention.head_count, 4",
        "llama.attention.head_count_kv",
    ),
    "embedding not divisible": (
        Synthetic(drop=("attention.key_length",), keys={"embedding_length": 66}),
        ModelError,
        r"embedding_length.*66 is not divisible by attention.head_count, 4",
        "llama.embedding_length",
    ),
    "values of another length": (
        Synthetic(keys={"attention.value_length": 8}),
        ModelError,
        r"value_length.*8 differs from the key length, 16",
        "llama.attention.value_length",
    ),
    "odd rope": (
        Synthetic(keys={"rope.dimension_count": 7}),
        ModelError,
        r"rope.dimension_count.*7 is not an even number up to the head size, 16",
        "llama.rope.dimension_count",
    ),
    "rope wider than a head": (
        Synthetic(keys={"rope.dimension_count": 32}),
        ModelError,
        r"rope.dimension_count.*32",
        "llama.rope.dimension_count",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, tmp_path: Path) -> None:
    recipe, kind, message, subject = CASES[case]
    path = recipe.write(tmp_path)
    with pytest.raises(kind, match=message) as caught:
        quantloom.load(path, device="cpu")
    assert subject is None or caught.value.subject == subject


REQUIRED = [
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
]

OUTSIDE: list[tuple[str, Any]] = [
    ("context_length", 0),
    ("context_length", 2**31),
    ("embedding_length", 0),
    ("block_count", 0),
    ("block_count", 10**9),
    ("block_count", -1),
    ("feed_forward_length", 0),
    ("attention.head_count", 0),
    ("attention.head_count", 10**6),
    ("attention.head_count_kv", 0),
    ("attention.key_length", 0),
    ("attention.key_length", 2**32),
    ("attention.sliding_window", -1),
    ("vocab_size", 0),
    ("rope.dimension_count", 0),
    ("attention.layer_norm_rms_epsilon", -1e-5),
    ("attention.layer_norm_rms_epsilon", float("nan")),
    ("rope.freq_base", 0.0),
    ("rope.freq_base", float("inf")),
    ("rope.scaling.factor", 0.0),
    ("rope.scaling.attn_factor", -1.0),
    ("attention.scale", 0.0),
]

WRONG_TYPES: list[tuple[str, Any]] = [
    ("context_length", "128"),
    ("embedding_length", 64.0),
    ("block_count", [2, 2]),
    ("attention.head_count", True),
    ("attention.layer_norm_rms_epsilon", "tiny"),
    ("rope.scaling.type", 1),
    ("attention.causal", 1),
]


@pytest.mark.parametrize("key", REQUIRED)
def test_missing_key(key: str, tmp_path: Path) -> None:
    path = replace(BASE, drop=(key,)).write(tmp_path)
    with pytest.raises(ModelError, match=f"llama.{key}") as caught:
        quantloom.load(path, device="cpu")
    assert caught.value.subject == f"llama.{key}"


@pytest.mark.parametrize(("key", "value"), OUTSIDE + WRONG_TYPES)
def test_key_out_of_range_or_of_another_type(key: str, value: Any, tmp_path: Path) -> None:
    path = replace(BASE, keys={key: value}).write(tmp_path)
    with pytest.raises(ModelError, match=f"llama.{key}") as caught:
        quantloom.load(path, device="cpu")
    assert caught.value.subject == f"llama.{key}"


SIZES: list[dict[str, int]] = [
    {"embedding_length": 128},
    {"feed_forward_length": 64},
    {"attention.head_count": 8},
    {"attention.head_count_kv": 4},
    {"attention.key_length": 32, "attention.value_length": 32},
]


@pytest.mark.parametrize("keys", SIZES, ids=lambda keys: next(iter(keys)))
def test_sizes_that_the_tensors_do_not_have(keys: dict[str, int], tmp_path: Path) -> None:
    path = replace(BASE, keys=keys).write(tmp_path)
    with pytest.raises(ModelError, match=r"has shape .* the hyperparameters call for"):
        quantloom.load(path, device="cpu")


def test_names_in_messages_cannot_steer_a_terminal(tmp_path: Path) -> None:
    name = "\x1b[2J\x9b31m\u202e"
    path = Synthetic(tensors={name: np.zeros(8, np.float32)}).write(tmp_path)
    with pytest.raises(ModelError, match="is not part of a llama model") as caught:
        quantloom.load(path, device="cpu")
    for text in (str(caught.value), str(caught.value.subject)):
        assert not set(name) & set(text) - set("[2J31m")


@pytest.mark.parametrize(("format", "alignment"), [("F32", 4), ("F16", 2), ("Q8_0", 2)])
def test_matrices_across_their_numbers(format: str, alignment: int, tmp_path: Path) -> None:
    """Files whose general.alignment is 1, with as many bytes before the data as it takes."""
    recipe = Synthetic(format=format)
    for shift in range(4):
        path = tmp_path / f"{shift}.gguf"
        with quantloom.open(recipe.write(tmp_path)) as file:
            builder = Builder(alignment=1).key("general.name", "string", "x" * shift)
            for key, value in file.metadata.items():
                kind = file.metadata.type(key)
                if key != "general.alignment":
                    builder.key(key, kind, value)
            for tensor in file.tensors.values():
                data = tensor.bytes.tobytes()
                builder.tensor(tensor.name, tensor.format, tensor.shape[::-1], data)
        path.write_bytes(builder.build())
        start = len(builder.header())
        if start % alignment == 0:
            with quantloom.load(path, device="cpu") as model:
                assert len(model.generate([1, 2], max_new_tokens=2).tokens) == 2
            continue
        with pytest.raises(ModelError, match=rf"must be a multiple of {alignment}") as caught:
            quantloom.load(path, device="cpu")
        assert caught.value.offset == start and caught.value.limit == alignment


def test_check_weights_can_be_left_out(tmp_path: Path) -> None:
    path = Synthetic(tensors={"blk.1.attn_norm.weight": INF}).write(tmp_path)
    with quantloom.load(path, device="cpu", check_weights=False) as model:
        assert model.block_count == 2


ARGUMENTS: list[tuple[str, Any, str]] = [
    ("device", "gpu", "device 'gpu' is not one of"),
    ("device", 3, "device must be a string"),
    ("precision", "best", "precision 'best' is not one of 'exact', 'fast'"),
    ("cache_type", "q4_0", "cache_type 'q4_0' is not one of 'f16', 'f32', 'q8_0'"),
    ("context_length", 0, "context_length is 0, outside 1 to 128"),
    ("context_length", -1, "context_length is -1, outside 1 to 128"),
    ("context_length", 129, "context_length is 129, outside 1 to 128"),
    ("context_length", 10**30, "context_length is 10{30}, outside"),
    ("context_length", 1.5, "context_length must be an integer"),
    ("context_length", True, "context_length must be an integer"),
    ("threads", 0, "threads is 0, outside 1 to 1024"),
    ("threads", -5, "threads is -5"),
    ("threads", 10**6, "threads is 1000000"),
]


@pytest.mark.parametrize(("name", "value", "message"), ARGUMENTS)
def test_arguments_of_load(name: str, value: Any, message: str, tmp_path: Path) -> None:
    path = BASE.write(tmp_path)
    with pytest.raises(InvalidArgument, match=message) as caught:
        quantloom.load(path, **{"device": "cpu", name: value})
    assert caught.value.subject == name


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    path = BASE.write(tmp_path)
    with pytest.raises(quantloom.DeviceError) as caught:
        quantloom.load(path, device="cuda:99")
    assert len(str(caught.value)) > 20


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(quantloom.FileError, match=r"absent\.gguf"):
        quantloom.load(tmp_path / "absent.gguf", device="cpu")


def test_progress_ends_at_the_whole_and_can_stop(tmp_path: Path) -> None:
    path = BASE.write(tmp_path)
    seen: list[tuple[int, int]] = []
    with quantloom.load(path, device="cpu", progress=lambda d, t: seen.append((d, t))) as model:
        assert seen[-1][0] == seen[-1][1] == 2 * model.weight_bytes
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})

    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        quantloom.load(path, device="cpu", progress=stop)
