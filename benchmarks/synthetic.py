"""GGUF files with the shapes of well-known models and random weights, for speed measurements.

The blocks are random but sane: zero mean, a standard deviation of 0.02, no two tensors alike in
what a cache could notice. The tensor types follow the mixes that published files use.
"""

from __future__ import annotations

import argparse
import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

ALIGNMENT = 32
DEVIATION = 0.02
POOL_BYTES = 1 << 25  # of random blocks per tensor; longer tensors repeat them
WRITERS = 8


@dataclass(frozen=True)
class Shape:
    """What fixes the tensors of a model."""

    architecture: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    feed_forward: int
    vocabulary: int
    tied: bool
    rope_base: float
    epsilon: float
    qkv_bias: bool = False
    qk_norm: bool = False
    rope_factors: bool = False


SHAPES = {
    "Llama-3.2-1B": Shape(
        "llama", 2048, 16, 32, 8, 64, 8192, 128256, True, 500000.0, 1e-5, rope_factors=True
    ),
    "Llama-3.1-8B": Shape(
        "llama", 4096, 32, 32, 8, 128, 14336, 128256, False, 500000.0, 1e-5, rope_factors=True
    ),
    "Qwen2.5-3B": Shape(
        "qwen2", 2048, 36, 16, 2, 128, 11008, 151936, True, 1000000.0, 1e-6, qkv_bias=True
    ),
    "Qwen3-8B": Shape(
        "qwen3", 4096, 36, 32, 8, 128, 12288, 151936, False, 1000000.0, 1e-6, qk_norm=True
    ),
    "Qwen3-0.6B": Shape(
        "qwen3", 1024, 28, 16, 8, 128, 3072, 151936, True, 1000000.0, 1e-6, qk_norm=True
    ),
}


def _bytes(values: npt.NDArray[Any], width: int) -> Bytes:
    """Values as rows of `width` bytes."""
    data: Bytes = np.frombuffer(values.tobytes(), np.uint8).reshape(-1, width)
    return data


def _half(value: float) -> Bytes:
    half: Bytes = _bytes(np.array([value], np.float16), 2)[0]
    return half


@cache
def _noise() -> Bytes:
    words = np.random.default_rng(0).integers(0, 1 << 64, POOL_BYTES // 4, np.uint64)
    noise: Bytes = words.view(np.uint8)
    return noise


def _random(rng: np.random.Generator, blocks: int, width: int) -> Bytes:
    """A stretch of one long piece of noise, which costs no more than a copy."""
    noise = _noise()
    start = int(rng.integers(0, len(noise) - blocks * width + 1))
    data: Bytes = noise[start : start + blocks * width].copy()
    return data.reshape(blocks, width)


def _f32(rng: np.random.Generator, blocks: int) -> Bytes:
    values = rng.standard_normal(blocks, np.float32) * np.float32(DEVIATION)
    return _bytes(values, 4)


def _f16(rng: np.random.Generator, blocks: int) -> Bytes:
    values = rng.standard_normal(blocks, np.float32) * np.float32(DEVIATION)
    return _bytes(values.astype(np.float16), 2)


def _one_scale(width: int, scale: float) -> Callable[[np.random.Generator, int], Bytes]:
    """What makes blocks that begin with the half that all their values are multiplied by."""

    def make(rng: np.random.Generator, blocks: int) -> Bytes:
        data = _random(rng, blocks, width)
        data[:, :2] = _half(scale)
        return data

    return make


def _k_scales(data: Bytes, start: int, middle: float) -> None:
    """Minima equal to the scales and dmin = middle * d, so that the values have mean zero."""
    data[:, 0:2] = _half(DEVIATION / (36.8 * middle * 0.61))
    data[:, 2:4] = _half(DEVIATION / (36.8 * 0.61))
    data[:, start + 4 : start + 8] = data[:, start : start + 4]
    low = data[:, start + 8 : start + 12] & 15
    data[:, start + 8 : start + 12] = low | low << 4


def _q4_k(rng: np.random.Generator, blocks: int) -> Bytes:
    data = _random(rng, blocks, 144)
    _k_scales(data, 4, 7.5)
    return data


def _q5_k(rng: np.random.Generator, blocks: int) -> Bytes:
    data = _random(rng, blocks, 176)
    _k_scales(data, 4, 15.5)
    return data


def _q6_k(rng: np.random.Generator, blocks: int) -> Bytes:
    data = _random(rng, blocks, 210)
    data[:, 208:210] = _half(DEVIATION / (74 * 18.5))
    return data


@dataclass(frozen=True)
class Format:
    """A tensor type of the file: its id, and elements and bytes per block."""

    id: int
    elements: int
    bytes: int
    make: Callable[[np.random.Generator, int], Bytes]


FORMATS = {
    "F32": Format(0, 1, 4, _f32),
    "F16": Format(1, 1, 2, _f16),
    "Q4_0": Format(2, 32, 18, _one_scale(18, DEVIATION / 4.6)),
    "Q8_0": Format(8, 32, 34, _one_scale(34, DEVIATION / 74)),
    "Q4_K": Format(12, 256, 144, _q4_k),
    "Q5_K": Format(13, 256, 176, _q5_k),
    "Q6_K": Format(14, 256, 210, _q6_k),
    "IQ2_XXS": Format(16, 256, 66, _one_scale(66, DEVIATION / 53.5)),
    "IQ3_S": Format(21, 256, 110, _one_scale(110, DEVIATION / (18.4 * 7.6))),
    "IQ4_XS": Format(23, 256, 136, _one_scale(136, DEVIATION / (18.5 * 67))),
}

FILE_TYPES = {
    "F16": 1,
    "Q4_0": 2,
    "Q8_0": 7,
    "Q4_K_M": 15,
    "Q5_K_M": 17,
    "Q6_K": 18,
    "IQ2_XXS": 19,
    "IQ3_S": 26,
    "IQ4_XS": 30,
}


@dataclass(frozen=True)
class Tensor:
    """One entry of the tensor table."""

    name: str
    columns: int
    rows: int  # 0: a vector
    format: Format
    ones: bool = False
    offset: int = 0  # in the file, from the beginning of the data

    @property
    def nbytes(self) -> int:
        return self.columns // self.format.elements * self.format.bytes * max(self.rows, 1)


def _more_bits(layer: int, layers: int) -> bool:
    """Layers whose value and down projections the _M mixes store in Q6_K."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def tensors(shape: Shape, mix: str, counting: bool = False) -> Iterator[Tensor]:
    """The tensors of a model in file order."""
    base = FORMATS[mix.removesuffix("_M")]
    better = FORMATS["Q6_K"]
    vector = FORMATS["F32"]
    mixed = mix.endswith("_M")
    head = base if mix in ("F16", "Q8_0") else better
    q_width = shape.heads * shape.head_size
    kv_width = shape.kv_heads * shape.head_size

    table = head if shape.tied or counting else base
    yield Tensor("token_embd.weight", shape.width, shape.vocabulary, table)
    if not shape.tied:
        yield Tensor("output.weight", shape.width, shape.vocabulary, head)
    yield Tensor("output_norm.weight", shape.width, 0, vector, ones=True)
    if shape.rope_factors:
        yield Tensor("rope_freqs.weight", shape.head_size // 2, 0, vector, ones=True)
    for layer in range(shape.layers):
        raised = better if mixed and _more_bits(layer, shape.layers) else base
        prefix = f"blk.{layer}."
        yield Tensor(prefix + "attn_norm.weight", shape.width, 0, vector, ones=True)
        yield Tensor(prefix + "attn_q.weight", shape.width, q_width, base)
        yield Tensor(prefix + "attn_k.weight", shape.width, kv_width, base)
        yield Tensor(prefix + "attn_v.weight", shape.width, kv_width, raised)
        if shape.qkv_bias:
            yield Tensor(prefix + "attn_q.bias", q_width, 0, vector)
            yield Tensor(prefix + "attn_k.bias", kv_width, 0, vector)
            yield Tensor(prefix + "attn_v.bias", kv_width, 0, vector)
        if shape.qk_norm:
            yield Tensor(prefix + "attn_q_norm.weight", shape.head_size, 0, vector, ones=True)
            yield Tensor(prefix + "attn_k_norm.weight", shape.head_size, 0, vector, ones=True)
        yield Tensor(prefix + "attn_output.weight", q_width, shape.width, base)
        yield Tensor(prefix + "ffn_norm.weight", shape.width, 0, vector, ones=True)
        yield Tensor(prefix + "ffn_gate.weight", shape.width, shape.feed_forward, base)
        yield Tensor(prefix + "ffn_up.weight", shape.width, shape.feed_forward, base)
        yield Tensor(prefix + "ffn_down.weight", shape.feed_forward, shape.width, raised)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _metadata(shape: Shape, mix: str, name: str, context: int) -> list[bytes]:
    prefix = shape.architecture + "."
    integers = {
        "general.file_type": FILE_TYPES[mix],
        prefix + "block_count": shape.layers,
        prefix + "context_length": context,
        prefix + "embedding_length": shape.width,
        prefix + "feed_forward_length": shape.feed_forward,
        prefix + "attention.head_count": shape.heads,
        prefix + "attention.head_count_kv": shape.kv_heads,
        prefix + "attention.key_length": shape.head_size,
        prefix + "attention.value_length": shape.head_size,
        prefix + "rope.dimension_count": shape.head_size,
        prefix + "vocab_size": shape.vocabulary,
    }
    floats = {
        prefix + "attention.layer_norm_rms_epsilon": shape.epsilon,
        prefix + "rope.freq_base": shape.rope_base,
    }
    strings = {
        "general.architecture": shape.architecture,
        "general.name": f"{name} shape, random weights",
        "tokenizer.ggml.model": "no_vocab",
    }
    entries = [_text(key) + struct.pack("<I", 8) + _text(text) for key, text in strings.items()]
    entries += [_text(key) + struct.pack("<II", 4, value) for key, value in integers.items()]
    entries += [_text(key) + struct.pack("<If", 6, value) for key, value in floats.items()]
    return entries


def _pieces(tensor: Tensor, seed: list[int], counting: bool) -> Iterator[Bytes]:
    """The bytes of a tensor: a pool of random blocks, again and again."""
    blocks = tensor.nbytes // tensor.format.bytes
    if tensor.ones:
        yield np.ones(blocks, np.float32).view(np.uint8)
        return
    # An odd number of blocks, so that no two rows of a long tensor are the same.
    count = min(blocks, POOL_BYTES // tensor.format.bytes - 1 | 1)
    table = counting and tensor.name in ("token_embd.weight", "output.weight")
    pool = tensor.format.make(np.random.default_rng([0] if table else seed), count)
    if counting and tensor.name.endswith(("attn_output.weight", "ffn_down.weight")):
        scale = slice(208, 210) if tensor.format is FORMATS["Q6_K"] else slice(0, 4)
        pool[:, scale if tensor.format.elements == 256 else slice(0, 2)] = 0
    if table and tensor.name == "token_embd.weight":
        pool = np.roll(pool, -(tensor.columns // tensor.format.elements), axis=0)
    for start in range(0, blocks, count):
        yield pool[: blocks - start].reshape(-1)


def write(
    path: Path,
    name: str = "Llama-3.2-1B",
    mix: str = "Q4_K_M",
    context: int = 131072,
    seed: int = 0,
    counting: bool = False,
) -> Path:
    """Write the model `name` of SHAPES in the types of `mix` (a key of FILE_TYPES) to `path`.

    `counting` makes a model whose layers add nothing, and whose embedding of token t is the head's
    row t + 1 (of t itself where one table is both): so it counts, or repeats itself, at the speed
    of any other model of this shape.
    """
    shape = SHAPES[name]
    offset = 0
    table = []
    for tensor in tensors(shape, mix, counting):
        table.append(replace(tensor, offset=offset))
        offset += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    metadata = _metadata(shape, mix, name, context)
    header = [b"GGUF" + struct.pack("<IQQ", 3, len(table), len(metadata)), *metadata]
    for tensor in table:
        sizes = [tensor.columns] + ([tensor.rows] if tensor.rows else [])
        header.append(
            _text(tensor.name)
            + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
            + struct.pack("<IQ", tensor.format.id, tensor.offset)
        )
    begin = b"".join(header)
    begin += bytes(-len(begin) % ALIGNMENT)
    _noise()
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.truncate(len(begin) + offset)
        os.pwrite(file.fileno(), begin, 0)

        def fill(number: int) -> None:
            at = len(begin) + table[number].offset
            for piece in _pieces(table[number], [seed, number], counting):
                at += os.pwrite(file.fileno(), piece.data, at)

        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(fill, range(len(table))))
    return temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--model", choices=SHAPES, default="Llama-3.2-1B")
    parser.add_argument("--mix", choices=FILE_TYPES, default="Q4_K_M")
    parser.add_argument("--context", type=int, default=131072)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    path = write(arguments.path, arguments.model, arguments.mix, arguments.context, arguments.seed)
    print(f"{path}: {path.stat().st_size / 1e9:.3f} GB")


if __name__ == "__main__":
    main()
