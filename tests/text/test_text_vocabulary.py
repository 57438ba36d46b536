"""What a file can say wrong about its vocabulary: one typed error each, by key and limit."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from vocabularies import bpe_metadata, spm_metadata

from quantloom.errors import InvalidArgument, TokenizerError
from quantloom.text import Tokenizer

T = "tokenizer.ggml."
REMOVE = object()


def change(make: Callable[[], dict[str, Any]], **changes: Any) -> dict[str, Any]:
    metadata = make()
    for key, value in changes.items():
        if value is REMOVE:
            del metadata[T + key]
        else:
            metadata[T + key] = value(metadata[T + key]) if callable(value) else value
    return metadata


def put(index: int, value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [*values[:index], value, *values[index + 1 :]]


CASES = [
    ("no model", change(bpe_metadata, model=REMOVE), "model", "is missing", None),
    ("model a number", change(bpe_metadata, model=7), "model", "must be a string, not int", None),
    ("model bert", change(bpe_metadata, model="bert"), "model", "served are gpt2, llama", None),
    ("no pre", change(bpe_metadata, pre=REMOVE), "pre", "is missing, and the tokens depend", None),
    ("unknown pre", change(bpe_metadata, pre="klingon"), "pre", "is 'klingon'; the known", None),
    ("no tokens", change(bpe_metadata, tokens=REMOVE), "tokens", "is missing", None),
    ("empty", change(bpe_metadata, tokens=[]), "tokens", "is empty", 1),
    ("tokens a string", change(bpe_metadata, tokens="abc"), "tokens", "must be an array", None),
    (
        "token of bytes",
        change(bpe_metadata, tokens=put(3, b"\xff")),
        "tokens",
        "entry 3 is bytes",
        None,
    ),
    (
        "duplicate",
        change(bpe_metadata, tokens=put(7, "hello")),
        "tokens",
        "has 'hello' twice, as tokens 7 and 259",
        1,
    ),
    (
        "types short",
        change(bpe_metadata, token_type=lambda types: types[:-1]),
        "token_type",
        "has 268 entries for 269 tokens",
        269,
    ),
    (
        "types of floats",
        change(bpe_metadata, token_type=put(2, 1.0)),
        "token_type",
        "entry 2 is 1.0; a token type is 0 to 6",
        6,
    ),
    ("type 7", change(bpe_metadata, token_type=put(2, 7)), "token_type", "entry 2 is 7", 6),
    (
        "scores long",
        change(spm_metadata, scores=lambda scores: [*scores, 0.0]),
        "scores",
        "has 271 entries for 270 tokens",
        270,
    ),
    (
        "scores of strings",
        change(spm_metadata, scores=put(0, "x")),
        "scores",
        "must hold numbers; entry 0 is str",
        None,
    ),
    (
        "score not a number",
        change(spm_metadata, scores=put(5, float("nan"))),
        "scores",
        "entry 5 is not a number",
        None,
    ),
    ("no scores", change(spm_metadata, scores=REMOVE), "scores", "is missing", None),
    (
        "scores of a gpt2 file",
        change(bpe_metadata, scores=[1.0]),
        "scores",
        "has 1 entries for 269 tokens",
        269,
    ),
    (
        "bos past the end",
        change(bpe_metadata, bos_token_id=269),
        "bos_token_id",
        "is 269, past the vocabulary of 269 tokens",
        269,
    ),
    (
        "eos negative",
        change(bpe_metadata, eos_token_id=-1),
        "eos_token_id",
        "is -1, past the vocabulary",
        269,
    ),
    (
        "padding true",
        change(bpe_metadata, padding_token_id=True),
        "padding_token_id",
        "must be an integer, not True",
        None,
    ),
    (
        "bos by default past the end",
        {
            T + "model": "llama",
            T + "tokens": ["a"],
            T + "scores": [0.0],
        },
        "bos_token_id",
        "is absent, and its default 1 is past the vocabulary of 1 tokens",
        1,
    ),
    (
        "byte <0x-1>",
        change(spm_metadata, tokens=put(4, "<0x-1>")),
        "tokens",
        "token 4 is '<0x-1>', of type byte: it must be <0xHH>",
        2,
    ),
    (
        "byte <0xZZ>",
        change(spm_metadata, tokens=put(4, "<0xZZ>")),
        "tokens",
        "token 4 is '<0xZZ>'",
        2,
    ),
    (
        "byte of three digits",
        change(spm_metadata, tokens=put(4, "<0x001>")),
        "tokens",
        "token 4 is '<0x001>'",
        2,
    ),
    (
        "byte twice",
        change(spm_metadata, tokens=put(14, "<0x0a>")),
        "tokens",
        "has the byte 0x0A twice, as tokens 13 and 14",
        1,
    ),
    (
        "add_bos without bos",
        change(bpe_metadata, bos_token_id=REMOVE, add_bos_token=True),
        "add_bos_token",
        "is true, but tokenizer.ggml.bos_token_id names no token",
        None,
    ),
    (
        "add_eos without eos",
        change(bpe_metadata, eos_token_id=REMOVE, add_eos_token=True),
        "add_eos_token",
        "is true, but tokenizer.ggml.eos_token_id names no token",
        None,
    ),
    (
        "add_bos a number",
        change(bpe_metadata, add_bos_token=1),
        "add_bos_token",
        "must be true or false, not 1",
        None,
    ),
    ("no merges", change(bpe_metadata, merges=REMOVE), "merges", "is missing", None),
    (
        "merge of one token",
        change(bpe_metadata, merges=put(1, "ll")),
        "merges",
        "entry 1 is 'll'; a merge is two tokens with one space",
        2,
    ),
    (
        "merge of an unknown token",
        change(bpe_metadata, merges=put(4, "Ġ zz")),
        "merges",
        "entry 4 is 'Ġ zz', but 'zz' is not in the vocabulary",
        269,
    ),
    (
        "merge into an unknown token",
        change(bpe_metadata, merges=put(4, "x y")),
        "merges",
        "'xy' is not in the vocabulary",
        269,
    ),
    (
        "chat template a number",
        {**bpe_metadata(), "tokenizer.chat_template": 3},
        "tokenizer.chat_template",
        "must be a string, not int",
        None,
    ),
    (
        "no_vocab with a size that is none",
        {
            T + "model": "no_vocab",
            "general.architecture": "llama",
            "llama.vocab_size": -1,
        },
        "llama.vocab_size",
        "must be an integer of at least 0",
        0,
    ),
]


@pytest.mark.parametrize(
    ("metadata", "key", "message", "limit"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_refused(metadata: dict[str, Any], key: str, message: str, limit: int | None) -> None:
    subject = key if "." in key else T + key
    with pytest.raises(TokenizerError, match=re.escape(message)) as caught:
        Tokenizer.from_metadata(metadata)
    assert str(caught.value).startswith(subject)
    assert (caught.value.subject, caught.value.limit) == (subject, limit)


@pytest.mark.parametrize("pre", ["klingon", 3, ["gpt-2"]])
def test_a_pre_tokenizer_that_is_not_there(pre: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^pre is .*; the known ones are .*qwen2") as caught:
        Tokenizer.from_metadata(bpe_metadata(), pre=pre)
    assert caught.value.subject == "pre"


def test_a_pre_tokenizer_that_nothing_would_use() -> None:
    with pytest.raises(InvalidArgument, match="tokenizer is 'llama', which has no pre-tokenizer"):
        Tokenizer.from_metadata(spm_metadata(), pre="gpt-2")


def test_a_missing_pre_can_be_named() -> None:
    tokenizer = Tokenizer.from_metadata(change(bpe_metadata, pre=REMOVE), pre="gpt-2")
    assert tokenizer.pre == "gpt-2"
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"


@pytest.mark.parametrize("role", ["padding", "seperator", "mask", "fim_pad", "fim_rep", "fim_sep"])
@pytest.mark.parametrize("index", [2**32 - 1, 269, -1])
def test_a_role_without_use_may_name_no_token(role: str, index: int) -> None:
    key = f"{role}_token_id"
    tokenizer = Tokenizer.from_metadata(change(bpe_metadata, **{key: index}))
    without = Tokenizer.from_metadata(bpe_metadata())
    assert tokenizer._vocabulary.special == without._vocabulary.special
    assert tokenizer.stop_ids == without.stop_ids
    with pytest.raises(TokenizerError, match="must be an integer"):
        Tokenizer.from_metadata(change(bpe_metadata, **{key: "none"}))


@pytest.mark.parametrize("role", ["bos", "eos", "eot", "eom", "unknown"])
def test_a_role_of_use_names_a_token(role: str) -> None:
    with pytest.raises(TokenizerError, match="past the vocabulary of 269 tokens") as caught:
        Tokenizer.from_metadata(change(bpe_metadata, **{f"{role}_token_id": 2**32 - 1}))
    assert caught.value.subject == f"{T}{role}_token_id"


def test_defaults() -> None:
    tokenizer = Tokenizer.from_metadata(spm_metadata())
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unknown_id) == (1, 2, 0)
    assert tokenizer.add_bos and not tokenizer.add_eos
    # llama-3 names put BOS first, but a default cannot ask for a token the file does not have.
    without = change(bpe_metadata, pre="llama-bpe", bos_token_id=REMOVE)
    assert not Tokenizer.from_metadata(without).add_bos
    assert Tokenizer.from_metadata(change(bpe_metadata, pre="llama-bpe")).add_bos


def test_no_vocab() -> None:
    tokenizer = Tokenizer.from_metadata(
        {T + "model": "no_vocab", "general.architecture": "llama", "llama.vocab_size": 512}
    )
    assert tokenizer.vocab_size == 512
    assert tokenizer.stop_ids == frozenset()
    with pytest.raises(TokenizerError, match="give and take token ids"):
        tokenizer.encode("text")
    with pytest.raises(TokenizerError, match="give and take token ids"):
        tokenizer.decode([1])


def test_empty_tokens_are_never_written() -> None:
    metadata = spm_metadata()
    for key, value in (("tokens", ""), ("scores", 0.0), ("token_type", 1)):
        metadata[T + key] += [value, value]
    tokenizer = Tokenizer.from_metadata(metadata)
    assert tokenizer.token_bytes(270) == b""
    assert tokenizer.decode(tokenizer.encode("ab")) == "ab"
