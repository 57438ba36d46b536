"""Writes a checkpoint as a GGUF file in float32, its weights rounded to Q4_K_M's grid.

`quantloom quantize FILE OUT Q4_K_M` then stores those weights in their blocks.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import torch

from . import corpus, vocabulary
from .network import Network, Shape
from .rounding import q4_k_m
from .train import load_weights

NAME = "quantloom tiny"
DESCRIPTION = (
    "Tells short stories, answers simple questions, adds and subtracts small numbers. "
    "Trained on text that quantloom's tools/tiny_model generates."
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def write(checkpoint: Path, output: Path) -> None:
    record = json.loads((checkpoint / "training.json").read_text())
    shape = Shape(**record["shape"])
    writer = gguf.GGUFWriter(output, "llama")
    writer.add_name(NAME)
    writer.add_author("the quantloom developers")
    writer.add_license("mit")
    writer.add_description(DESCRIPTION)
    writer.add_size_label(f"{record['parameters'] / 1e6:.0f}M")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.vocabulary)
    _add_vocabulary(writer, checkpoint / "tokenizer.json")
    weights = load_weights(checkpoint)
    for name, _ in Network(shape).named_parameters():
        rounded = q4_k_m(name, torch.from_numpy(weights[name]), shape.layers)
        writer.add_tensor(f"{name}.weight", rounded.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, path: Path) -> None:
    saved = json.loads(path.read_text())["model"]
    ids: dict[str, int] = saved["vocab"]
    tokens = sorted(ids, key=lambda token: ids[token])
    special = set(corpus.SPECIAL_TOKENS)
    merges = [" ".join(m) if isinstance(m, list) else m for m in saved["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens]
    )
    writer.add_token_merges(merges)
    writer.add_bos_token_id(ids[corpus.BEGIN])
    writer.add_eos_token_id(ids[corpus.END])
    writer.add_eot_token_id(ids[corpus.END])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
