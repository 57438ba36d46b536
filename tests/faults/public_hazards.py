"""The table of hazards as a user meets them: a file, a call, and what the error must say."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from builder import TENSOR_TYPES, Builder, tensor_record
from chat_model import REMOVED, chat_model
from vocabularies import bpe_metadata, spm_metadata

import quantloom
from quantloom import (
    ContextFull,
    GGUFError,
    InvalidArgument,
    ModelError,
    QuantloomError,
    TemplateError,
    TokenizerError,
)
from synthetic_model import VOCABULARY, Synthetic

T = "tokenizer.ggml."


Call = Callable[[Path, str], None]  # of a file and a device


def load(path: Path, device: str) -> None:
    quantloom.load(path, device=device).close()


def load_with(**arguments: Any) -> Call:
    return lambda path, device: quantloom.load(path, device=device, **arguments).close()


def generate_with(prompt: Any, **options: Any) -> Call:
    def call(path: Path, device: str) -> None:
        with quantloom.load(path, device=device) as model:
            model.generate(prompt, **options)

    return call


def chat(path: Path, device: str) -> None:
    with quantloom.load(path, device=device) as model:
        model.chat("Hello", max_new_tokens=1)


class Hazard(NamedTuple):
    row: int  # of the table of hazards
    name: str
    make: Callable[[Path], Path]
    call: Call
    error: type[QuantloomError]
    message: str
    subject: str
    offset: int | None = None
    limit: int | None = None


def synthetic(**recipe: Any) -> Callable[[Path], Path]:
    return lambda folder: Synthetic(**recipe).write(folder)


def vocabulary(kind: str = "bpe", **changes: Any) -> Callable[[Path], Path]:
    return lambda folder: chat_model(folder, kind, {T + k: v for k, v in changes.items()})


def template(source: str) -> Callable[[Path], Path]:
    return lambda folder: chat_model(folder, changes={"tokenizer.chat_template": source})


def changed(values: list[Any], index: int, value: Any) -> list[Any]:
    return [*values[:index], value, *values[index + 1 :]]


def wide_table(folder: Path) -> Path:
    """A vocabulary of 2^31 tokens, whose table is a hole in the file."""
    rows, columns = 2**31, 32
    header = Builder()
    header.key("general.architecture", "string", "llama")
    for key, value in {
        "context_length": 128,
        "embedding_length": columns,
        "block_count": 1,
        "feed_forward_length": 96,
        "attention.head_count": 2,
    }.items():
        header.key(f"llama.{key}", "uint32", value)
    header.key("llama.attention.layer_norm_rms_epsilon", "float32", 1e-5)
    kind, _, block_bytes = TENSOR_TYPES["Q4_0"]
    header.raw_tensor(tensor_record("token_embd.weight", (columns, rows), kind, 0))
    path = folder / "model.gguf"
    with path.open("wb") as file:
        file.write(header.header())
        file.truncate(len(header.header()) + rows * block_bytes)
    return path


def bad_scale(kind: str, value: float, block: int) -> Callable[[Path], Path]:
    """The half that scales one block of blk.1.attn_q.weight."""

    def make(folder: Path) -> Path:
        path = Synthetic(format=kind).write(folder)
        with quantloom.open(path) as file:
            tensor = file.tensors["blk.1.attn_q.weight"]
            offset = tensor.offset + block * TENSOR_TYPES[kind][2]
        with path.open("r+b") as handle:
            os.pwrite(handle.fileno(), struct.pack("<e", value), offset)
        return path

    return make


def split(**changes: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        first = Builder().key("general.architecture", "string", "llama")
        first.key("split.no", "uint16", 0).key("split.count", "uint16", changes.get("count", 2))
        first.key("split.tensors.count", "int32", 1).tensor("a", "F32", (8,))
        path = folder / changes.get("name", "model-00001-of-00002.gguf")
        path.write_bytes(first.build())
        return path

    return make


BPE, SPM = bpe_metadata(), spm_metadata()
BPE_SIZE, SPM_SIZE = len(BPE[T + "tokens"]), len(SPM[T + "tokens"])
TEMPLATE = "tokenizer.chat_template"
INF = np.array([1.0] * 5 + [np.inf] + [1.0] * 58, np.float32)
KEY = "llama."

MODEL_CASES = [
    Hazard(
        17,
        "missing hyperparameter",
        synthetic(drop=("attention.head_count",)),
        load,
        ModelError,
        "'llama.attention.head_count' is missing",
        KEY + "attention.head_count",
    ),
    Hazard(
        17,
        "hyperparameter of another type",
        synthetic(keys={"block_count": "2"}),
        load,
        ModelError,
        "'llama.block_count' is of type string, wanted integer",
        KEY + "block_count",
    ),
    Hazard(
        18,
        "no heads",
        synthetic(keys={"attention.head_count": 0}),
        load,
        ModelError,
        "0, outside 1 to 4096",
        KEY + "attention.head_count",
        limit=4096,
    ),
    Hazard(
        18,
        "10^9 blocks",
        synthetic(keys={"block_count": 10**9}),
        load,
        ModelError,
        "1000000000, outside 1 to 4096",
        KEY + "block_count",
        limit=4096,
    ),
    Hazard(
        18,
        "embedding not divisible",
        synthetic(drop=("attention.key_length",), keys={"embedding_length": 66}),
        load,
        ModelError,
        "66 is not divisible by attention.head_count, 4",
        KEY + "embedding_length",
    ),
    Hazard(
        19,
        "tensor of another shape",
        synthetic(tensors={"blk.0.ffn_down.weight": np.zeros((96, 64), np.float32)}),
        load,
        ModelError,
        "has shape 64 x 96; the hyperparameters call for 96 x 64",
        "blk.0.ffn_down.weight",
    ),
    Hazard(
        19,
        "missing tensor",
        synthetic(drop=("blk.1.ffn_norm.weight",)),
        load,
        ModelError,
        "blk.1.ffn_norm.weight",
        "blk.1.ffn_norm.weight",
    ),
    Hazard(
        20,
        "2^31 rows",
        wide_table,
        load,
        ModelError,
        "has 2147483648 rows, outside 1 to 16777216",
        "token_embd.weight",
        limit=1 << 24,
    ),
    Hazard(
        21,
        "NaN scale",
        bad_scale("Q4_0", float("nan"), 3),
        load,
        GGUFError,
        "has NaN or Inf in block 3 at byte",
        "blk.1.attn_q.weight",
    ),
    Hazard(
        21,
        "Inf scale",
        bad_scale("Q8_0", float("inf"), 7),
        load,
        GGUFError,
        "has NaN or Inf in block 7 at byte",
        "blk.1.attn_q.weight",
    ),
    Hazard(
        21,
        "Inf in a norm",
        synthetic(tensors={"blk.1.attn_norm.weight": INF}),
        load,
        GGUFError,
        "has NaN or Inf in block 5 at byte",
        "blk.1.attn_norm.weight",
    ),
]

TEXT_CASES = [
    Hazard(
        22,
        "scores of another length",
        vocabulary("spm", scores=[0.0] * 5),
        load,
        TokenizerError,
        f"has 5 entries for {SPM_SIZE} tokens",
        T + "scores",
        limit=SPM_SIZE,
    ),
    Hazard(
        22,
        "token types of another length",
        vocabulary(token_type=[1] * (BPE_SIZE + 1)),
        load,
        TokenizerError,
        f"has {BPE_SIZE + 1} entries for {BPE_SIZE} tokens",
        T + "token_type",
        limit=BPE_SIZE,
    ),
    Hazard(
        22,
        "token types of another type",
        vocabulary(token_type=[1.0] * BPE_SIZE),
        load,
        TokenizerError,
        "entry 0 is 1.0; a token type is 0 to 6",
        T + "token_type",
        limit=6,
    ),
    Hazard(
        23,
        "end token past the vocabulary",
        vocabulary(eos_token_id=BPE_SIZE),
        load,
        TokenizerError,
        f"is {BPE_SIZE}, past the vocabulary of {BPE_SIZE} tokens",
        T + "eos_token_id",
        limit=BPE_SIZE,
    ),
    Hazard(
        23,
        "start token past the vocabulary by default",
        vocabulary("spm", tokens=["a"], scores=[0.0], token_type=[1]),
        load,
        TokenizerError,
        "is absent, and its default 1 is past the vocabulary of 1 tokens",
        T + "bos_token_id",
        limit=1,
    ),
    Hazard(
        24,
        "byte token <0x-1>",
        vocabulary("spm", tokens=changed(SPM[T + "tokens"], 4, "<0x-1>")),
        load,
        TokenizerError,
        "token 4 is '<0x-1>', of type byte: it must be <0xHH>",
        T + "tokens",
    ),
    Hazard(
        24,
        "byte token <0xZZ>",
        vocabulary("spm", tokens=changed(SPM[T + "tokens"], 4, "<0xZZ>")),
        load,
        TokenizerError,
        "token 4 is '<0xZZ>', of type byte: it must be <0xHH>",
        T + "tokens",
    ),
    Hazard(
        25,
        "duplicate token",
        vocabulary(tokens=changed(BPE[T + "tokens"], 7, "hello")),
        load,
        TokenizerError,
        "has 'hello' twice, as tokens 7 and 259",
        T + "tokens",
    ),
    Hazard(
        25,
        "add_bos without a start token",
        vocabulary(bos_token_id=REMOVED, add_bos_token=True),
        load,
        TokenizerError,
        "is true, but tokenizer.ggml.bos_token_id names no token",
        T + "add_bos_token",
    ),
    Hazard(
        26,
        "template that reaches for Python",
        template("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        chat,
        TemplateError,
        "",
        TEMPLATE,
    ),
    Hazard(
        26,
        "template that reaches through a format",
        template("{{ '{0.__class__.__init__.__globals__}'.format(messages) }}"),
        chat,
        TemplateError,
        "",
        TEMPLATE,
    ),
    Hazard(
        26,
        "template that includes a file",
        template("{% include '/etc/passwd' %}"),
        chat,
        TemplateError,
        "",
        TEMPLATE,
    ),
    Hazard(
        27,
        "template that loops 10^9 times",
        template("{% for i in range(1000000000) %}x{% endfor %}"),
        chat,
        TemplateError,
        "",
        TEMPLATE,
    ),
    Hazard(
        27,
        "template that prints without end",
        template("{% for i in range(99999) %}" + "A" * 5000 + "{% endfor %}"),
        chat,
        TemplateError,
        "cap",
        TEMPLATE,
    ),
    Hazard(
        27,
        "template of 64 KiB",
        template("x" * (64 * 1024 + 1)),
        chat,
        TemplateError,
        "",
        TEMPLATE,
    ),
]

CALL_CASES = [
    Hazard(
        28,
        f"{name}={value}",
        synthetic(),
        load_with(**{name: value})
        if name in ("context_length", "threads")
        else generate_with([1, 2], **{name: value}),
        InvalidArgument,
        name,
        name,
    )
    for name, value in [
        ("context_length", -1),
        ("context_length", 2**63),
        ("threads", -1),
        ("threads", 2**40),
        ("max_new_tokens", -1),
        ("max_new_tokens", 2**31),
        ("top_k", -1),
        ("top_k", 2**64),
        ("seed", -1),
        ("seed", 2**64),
        ("penalty_window", -1),
        ("logprobs", 10**9),
    ]
] + [
    Hazard(
        28,
        "token id past the vocabulary",
        synthetic(),
        generate_with([1, VOCABULARY]),
        InvalidArgument,
        f"token 1 of the prompt is {VOCABULARY}, outside 0 to {VOCABULARY - 1}",
        "prompt",
        limit=VOCABULARY - 1,
    ),
    Hazard(
        29,
        "65,535 shards",
        split(count=2**16 - 1),
        load,
        GGUFError,
        "outside 1 to 1024",
        "split.count",
        limit=1024,
    ),
    Hazard(
        29,
        "shard of another name",
        split(name="model.gguf"),
        load,
        GGUFError,
        "one of 2 shards, but is not named",
        "split.count",
        limit=2,
    ),
    Hazard(
        29,
        "shard that is not in the folder",
        split(),
        load,
        quantloom.FileError,
        "model-00002-of-00002.gguf': No such file or directory",
        "model-00002-of-00002.gguf",
    ),
    Hazard(
        30,
        "prompt longer than the context",
        synthetic(),
        generate_with([1] * 129),
        ContextFull,
        "the prompt has 129 tokens, more than the context of 128",
        "prompt",
        limit=128,
    ),
    Hazard(
        30,
        "text longer than the context",
        lambda folder: chat_model(folder),
        generate_with("a" * 1_000_000),
        ContextFull,
        "tokens, more than the context of 128",
        "prompt",
        limit=128,
    ),
]

HAZARDS = MODEL_CASES + TEXT_CASES + CALL_CASES
