"""Encoding and decoding with small vocabularies whose tokens can be told by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import bpe_metadata, spm_metadata

from quantloom.errors import InvalidArgument, TokenizerError
from quantloom.text import Tokenizer

TEXTS = st.text(st.characters(codec="utf-8"), max_size=60) | st.text("ab é▁<>s/\n\0", max_size=60)


def names(tokenizer: Tokenizer, text: str, **options: Any) -> list[str]:
    return [tokenizer.token_text(index) for index in tokenizer.encode(text, **options)]


def test_bpe_merges_by_rank(bpe: Tokenizer) -> None:
    assert names(bpe, "hello w") == ["hello", "Ġw"]
    assert names(bpe, "hell 123") == ["hell", "Ġ", "123"]
    assert names(bpe, "é") == ["Ã©"]


def test_ignore_merges_takes_a_whole_piece() -> None:
    metadata = bpe_metadata("gpt-2")
    metadata["tokenizer.ggml.tokens"].append("world")
    metadata["tokenizer.ggml.token_type"].append(1)
    assert len(Tokenizer.from_metadata(metadata).encode("world")) == 5
    metadata["tokenizer.ggml.pre"] = "llama-bpe"
    assert names(Tokenizer.from_metadata(metadata), "world", add_special=False) == ["world"]


def test_plain_text_never_becomes_a_control_token() -> None:
    metadata = bpe_metadata("llama-bpe")
    metadata["tokenizer.ggml.tokens"].append("stop")
    metadata["tokenizer.ggml.token_type"].append(3)
    tokenizer = Tokenizer.from_metadata(metadata)
    index = tokenizer.token_id("stop")
    assert index in tokenizer.encode("stop")
    assert index not in tokenizer.encode("stop", parse_special=False)
    spm = Tokenizer.from_metadata(spm_metadata())
    assert spm.encode("<s>", add_special=False) == [1]
    assert 1 not in spm.encode("<s>", add_special=False, parse_special=False)


def test_special_tokens_inside_text(bpe: Tokenizer) -> None:
    assert names(bpe, "<|im_start|>he<tool>") == ["<|im_start|>", "he", "<tool>"]
    plain = names(bpe, "<|im_start|>he<tool>", parse_special=False)
    assert "<|im_start|>" not in plain
    assert plain[-1] == "<tool>"


def test_bos_and_eos_as_the_file_says() -> None:
    metadata = bpe_metadata()
    for add_bos in (False, True):
        for add_eos in (False, True):
            metadata["tokenizer.ggml.add_bos_token"] = add_bos
            metadata["tokenizer.ggml.add_eos_token"] = add_eos
            tokenizer = Tokenizer.from_metadata(metadata)
            expected = ["<|im_start|>"] * add_bos + ["he"] + ["<|im_end|>"] * add_eos
            assert names(tokenizer, "he") == expected
            assert names(tokenizer, "he", add_special=False) == ["he"]


def test_spm_merges_the_highest_score_then_the_leftmost(spm: Tokenizer) -> None:
    assert names(spm, "a") == ["<s>", "▁a"]
    # "▁a" outranks "ab" and "ba"; of the equal "ab" and "ba" the left one goes first.
    assert names(spm, "abab", add_special=False) == ["▁a", "ba", "b"]
    assert names(spm, "  a", add_special=False) == ["▁▁", "▁a"]
    assert names(spm, "xé", add_special=False) == ["▁", "<0x78>", "é"]
    assert names(spm, "€", add_special=False) == ["▁", "<0xE2>", "<0x82>", "<0xAC>"]
    assert spm.encode("", add_special=False) == []


def test_spm_space_prefix() -> None:
    metadata = spm_metadata()
    metadata["tokenizer.ggml.add_space_prefix"] = False
    plain = Tokenizer.from_metadata(metadata)
    assert names(plain, "a", add_special=False) == ["a"]
    assert plain.decode(plain.encode(" a")) == " a"


def test_spm_space_prefix_behind_special_tokens(spm: Tokenizer) -> None:
    text = "a</s>b <tool> ab"
    ids = spm.encode(text)
    assert spm.decode(ids, skip_special=False) == "<s>" + text
    assert spm.decode(ids) == "ab <tool> ab"
    # Behind plain text the space is the text's own.
    assert spm.decode_bytes(ids[1:2], previous=spm.token_id("b")) == b" a"


def test_spm_extra_spaces_go_where_the_file_says_so() -> None:
    metadata = spm_metadata()
    metadata["tokenizer.ggml.remove_extra_whitespaces"] = True
    tokenizer = Tokenizer.from_metadata(metadata)
    assert tokenizer.decode(tokenizer.encode("  a   b ")) == "a b"


def test_spm_without_bytes_says_what_it_cannot_write() -> None:
    metadata = spm_metadata()
    keep = [0, 1, 2, *range(259, 270)]
    for key in ("tokens", "scores", "token_type"):
        values = metadata[f"tokenizer.ggml.{key}"]
        metadata[f"tokenizer.ggml.{key}"] = [values[index] for index in keep]
    tokenizer = Tokenizer.from_metadata(metadata)
    assert names(tokenizer, "ax", add_special=False) == ["▁a", "<unk>"]


def test_bpe_without_a_byte_says_what_it_cannot_write() -> None:
    metadata = bpe_metadata()
    metadata["tokenizer.ggml.tokens"][ord("z")] = "unused"
    tokenizer = Tokenizer.from_metadata(metadata)
    assert tokenizer.encode("hello")
    with pytest.raises(TokenizerError, match="no token for the bytes of 'z'"):
        tokenizer.encode("hello z")


@pytest.mark.parametrize("kind", ["bpe", "spm"])
def test_lone_surrogates_are_refused(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    with pytest.raises(TokenizerError, match=r"lone surrogate U\+D800 at character 2") as caught:
        tokenizer.encode("ab\ud800")
    assert caught.value.subject == "text"


@pytest.mark.parametrize("text", [None, 3, b"bytes", ["list"]])
def test_text_must_be_a_string(bpe: Tokenizer, text: Any) -> None:
    with pytest.raises(InvalidArgument, match="text must be a string"):
        bpe.encode(text)


@pytest.mark.parametrize("index", [-1, 269, 1 << 70])
def test_ids_outside_the_vocabulary(bpe: Tokenizer, index: int) -> None:
    message = f"token id {index} is outside the vocabulary of 269 tokens"
    for call in (bpe.token_bytes, bpe.token_text, bpe.is_special, lambda i: bpe.decode([1, i])):
        with pytest.raises(InvalidArgument, match=message) as caught:
            call(index)
        assert caught.value.limit == 269


@pytest.mark.parametrize(
    "ids", [5, None, {1, 2}, {1: 2}, "12", b"12", bytearray(b"12"), np.array(5)]
)
def test_ids_are_a_sequence(bpe: Tokenizer, ids: Any) -> None:
    for call in (bpe.decode, bpe.decode_bytes):
        with pytest.raises(InvalidArgument, match="ids must be a sequence of token ids") as caught:
            call(ids)
        assert caught.value.subject == "ids"


@pytest.mark.parametrize("value", ["no", 1, None])
def test_choices_are_true_or_false(bpe: Tokenizer, value: Any) -> None:
    talk = [{"role": "user", "content": "Hi"}]
    for name, call in (
        ("add_special", lambda: bpe.encode("a", value)),
        ("parse_special", lambda: bpe.encode("a", parse_special=value)),
        ("skip_special", lambda: bpe.decode([1], value)),
        ("skip_special", lambda: bpe.decode_bytes([1], skip_special=value)),
        ("skip_special", lambda: bpe.stream_decoder(skip_special=value)),
        ("add_generation_prompt", lambda: bpe.apply_chat_template(talk, value)),
        ("add_generation_prompt", lambda: bpe.encode_messages(talk, value)),
    ):
        with pytest.raises(InvalidArgument, match=f"{name} must be True or False") as caught:
            call()
        assert caught.value.subject == name


@pytest.mark.parametrize("index", ["1", 1.0, None, True])
def test_ids_must_be_integers(bpe: Tokenizer, index: Any) -> None:
    with pytest.raises(InvalidArgument, match="a token id must be an integer"):
        bpe.decode([index])


def test_token_bytes(bpe: Tokenizer, spm: Tokenizer) -> None:
    assert bpe.token_bytes(bpe.encode("\n")[0]) == b"\n"
    assert bpe.token_bytes(266) == b"<|im_start|>"
    assert spm.token_bytes(3 + 0xE2) == b"\xe2"
    assert spm.decode([3 + 0xE2]) == "\ufffd"


def test_ends_of_generation(bpe: Tokenizer) -> None:
    assert bpe.stop_ids == {267}
    assert bpe.eot_id == 267
    metadata = bpe_metadata()
    # A token that ends a turn, but which the file marks as plain text, and three that close a
    # message of several.
    metadata["tokenizer.ggml.tokens"] += ["<|eot_id|>", "<|end|>", "<|return|>", "<|call|>", "</s>"]
    metadata["tokenizer.ggml.token_type"] += [1, 3, 3, 3, 1]
    tokenizer = Tokenizer.from_metadata(metadata)
    ends = {tokenizer.token_text(index) for index in tokenizer.stop_ids}
    assert ends == {"<|im_end|>", "<|eot_id|>", "<|return|>", "<|call|>"}
    assert tokenizer.is_special(269)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_round_trip(bpe: Tokenizer, spm: Tokenizer, text: str) -> None:
    for parse_special in (True, False):
        ids = bpe.encode(text, parse_special=parse_special)
        assert bpe.decode(ids, skip_special=False) == text
    ids = spm.encode(text, add_special=False)
    assert spm.decode(ids, skip_special=False) == text.replace("▁", " ")


@settings(max_examples=100, deadline=None)
@given(text=st.text("ab ", max_size=40))
def test_spm_words_apart_or_as_one_are_the_same(spm: Tokenizer, text: str) -> None:
    engine: Any = spm._engine
    text = text.replace(" ", "▁")
    assert engine.encode(text) == engine._merge(text)


def test_import_is_light() -> None:
    code = "import sys, quantloom.text; print(*{'tokenizers', 'jinja2'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
