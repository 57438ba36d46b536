"""Which tensor of a model gets which format: the mixes that GGUF files are known by.

The rules are llama.cpp's public ones: the output matrix (or an embedding that serves as one) and,
in some layers, the value and the down projections get more bits, since errors there cost the most.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from quantloom.formats import FORMATS

__all__ = ["MIXES", "Mix", "Model", "Source", "choose"]


@dataclass(frozen=True)
class Mix:
    """A mix: its base format and where it deviates.

    Attributes:
        name: such as "Q4_K_M".
        file_type: the number that general.file_type gives it.
        base: format of every tensor without a rule of its own.
        output: format of the output matrix.
        sensitive: format of value and down projections in the layers that get more bits.
        value_when_shared: format of value projections in 80-layer models, where eight heads share
            one.
        output_projection_of_experts: format of attention output projections with 8 experts.
    """

    name: str
    file_type: int
    base: str
    output: str
    sensitive: str
    value_when_shared: str
    output_projection_of_experts: str


MIXES: dict[str, Mix] = {
    mix.name: mix
    for mix in (
        Mix("Q4_0", 2, "Q4_0", "Q6_K", "Q4_0", "Q4_0", "Q4_0"),
        Mix("Q8_0", 7, "Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0"),
        Mix("Q4_K_M", 15, "Q4_K", "Q6_K", "Q6_K", "Q5_K", "Q5_K"),
        Mix("Q5_K_M", 17, "Q5_K", "Q6_K", "Q6_K", "Q5_K", "Q5_K"),
        Mix("Q6_K", 18, "Q6_K", "Q6_K", "Q6_K", "Q6_K", "Q6_K"),
    )
}

# Formats of 256 weights per block, and what stands in where a row is not a multiple of that.
_FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}

# Small or sensitive tensors, by a part of their name, that stay as they are.
_KEPT_PARTS = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_first.weight",
    "time_mix_w0.weight",
    "time_mix_w1.weight",
    "time_mix_w2.weight",
    "time_mix_v0.weight",
    "time_mix_v1.weight",
    "time_mix_v2.weight",
    "time_mix_a0.weight",
    "time_mix_a1.weight",
    "time_mix_a2.weight",
    "time_mix_g1.weight",
    "time_mix_g2.weight",
    "time_mix_decay_w1.weight",
    "time_mix_decay_w2.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
)
_KEPT_NAMES = ("position_embd.weight", "token_types.weight")

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
_VALUE = ("attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight")


@dataclass(frozen=True)
class Source:
    """A tensor to choose a format for: its name and its shape, rows before columns."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """What the rules ask of a model; 0 where the file does not say."""

    architecture: str
    blocks: int
    experts: int
    heads: int
    kv_heads: int


def gets_more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third of the others."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def is_quantized(tensor: Source) -> bool:
    """Whether a mix touches this tensor at all."""
    return (
        any(extent > 1 for extent in tensor.shape[:-1])
        and tensor.name.endswith("weight")
        and tensor.name not in _KEPT_NAMES
        and not any(part in tensor.name for part in _KEPT_PARTS)
    )


def _layer_of(tensor: Source) -> tuple[int, str]:
    match = _LAYER.fullmatch(tensor.name)
    return (int(match[1]), match[2]) if match else (-1, tensor.name)


def choose(mix: Mix, model: Model, tensors: Sequence[Source], notes: list[str]) -> list[str | None]:
    """The format of each tensor, None for those that stay as they are.

    `notes` receives a sentence for each tensor that cannot have the format meant for it.
    """
    places = [_layer_of(tensor) for tensor in tensors]
    value_layers = sorted({layer for layer, role in places if role in _VALUE})
    down_layers = sorted({layer for layer, role in places if role.startswith("ffn_down")})
    tied = all(tensor.name != "output.weight" for tensor in tensors)

    def wanted(tensor: Source, layer: int, role: str) -> str:
        if role == "output.weight" or (tied and role == "token_embd.weight"):
            fits = tensor.shape[-1] % FORMATS[mix.base].elements == 0
            return mix.output if fits and model.architecture != "falcon" else "Q8_0"
        if role in _VALUE:
            if model.experts == 8:
                return "Q8_0"
            if gets_more_bits(value_layers.index(layer), len(value_layers)):
                return mix.sensitive
            if model.blocks == 80 and model.heads != model.kv_heads:
                return mix.value_when_shared
        elif role == "attn_k.weight" and model.experts == 8:
            return "Q8_0"
        elif role.startswith("ffn_down"):
            several = model.experts > 1
            place = layer if several else down_layers.index(layer)
            count = model.blocks if several else len(down_layers)
            if gets_more_bits(place, count):
                return mix.sensitive
        elif role == "attn_output.weight" and model.experts == 8:
            return mix.output_projection_of_experts
        return mix.base

    chosen: list[str | None] = []
    for tensor, (layer, role) in zip(tensors, places, strict=True):
        if not is_quantized(tensor):
            chosen.append(None)
            continue
        format = wanted(tensor, layer, role)
        fitting = _fitting(format, tensor.shape[-1])
        if fitting != format:
            notes.append(
                f"{tensor.name} is {fitting}: rows of {tensor.shape[-1]} are not whole {format} "
                f"blocks of {FORMATS[format].elements}"
            )
        chosen.append(fitting)
    return chosen


def _fitting(format: str, columns: int) -> str:
    while columns % FORMATS[format].elements != 0:
        format = _FALLBACKS.get(format, "F16")
    return format
