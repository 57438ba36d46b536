"""The table of pre-tokenizers: what each family does with words, digits, signs and white space."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from quantloom.text import PRE_TOKENIZERS

PROMISED = (
    "default gpt-2 llama-bpe qwen2 qwen35 deepseek-llm deepseek-coder deepseek-r1-qwen tekken "
    "falcon starcoder refact command-r mpt smollm phi-2 gpt-4o"
)

CASES = [
    # Contractions: gpt-2 knows lower case only, llama-3 and qwen2 either.
    ("gpt-2", "I'VE we've", ["I", "'", "VE", " we", "'ve"]),
    ("llama-bpe", "I'VE we've", ["I", "'VE", " we", "'ve"]),
    ("gpt-4o", "I'VE we've", ["I'VE", " we've"]),
    ("tekken", "we've", ["we", "'ve"]),
    ("ufakzeka", "Ali'de", ["Ali", "'de"]),
    # Digits: as they come, one by one, or in threes.
    ("gpt-2", "a 12345", ["a", " 12345"]),
    ("default", "a 12345", ["a", " ", "123", "45"]),
    ("falcon", "a 12345", ["a", " ", "123", "45"]),
    ("starcoder", "a 123", ["a", " ", "1", "2", "3"]),
    ("refact", "a 123", ["a", " ", "1", "2", "3"]),
    ("command-r", "a 123", ["a", " ", "1", "2", "3"]),
    ("smollm", "a 123", ["a", " ", "1", "2", "3"]),
    ("deepseek-coder", "a 123", ["a", " ", "1", "2", "3"]),
    ("deepseek-llm", "a 123", ["a", " ", "123"]),
    ("deepseek-v3", "a 12345", ["a", " ", "123", "45"]),
    ("llama-bpe", "a 12345", ["a", " ", "123", "45"]),
    ("qwen2", "a 123", ["a", " ", "1", "2", "3"]),
    ("tekken", "a 123", ["a", " ", "1", "2", "3"]),
    ("gpt-4o", "a 12345", ["a", " ", "123", "45"]),
    ("superbpe", "a 12345", ["a ", "12", "345"]),
    ("tiny_aya", "a 12345", ["a", " ", "12", "345"]),
    ("qwen2", "²³Ⅷ", ["²", "³", "Ⅷ"]),
    # Where lower case meets upper case.
    ("llama-bpe", "camelCase", ["camelCase"]),
    ("gpt-4o", "camelCase HTTPServer", ["camel", "Case", " HTTPServer"]),
    ("tekken", "éÉa", ["é", "Éa"]),
    # Signs, and the one that a word takes along.
    ("gpt-2", " (hi)", [" (", "hi", ")"]),
    ("llama-bpe", " (hi)\n", [" (", "hi", ")\n"]),
    ("llama-bpe", "(hi", ["(hi"]),
    ("falcon", " a=b--c", [" a", "=", "b", "--", "c"]),
    ("deepseek-v3", "a.bc (d)", ["a", ".bc", " (", "d", ")"]),
    ("gpt-4o", "a //\n/", ["a", " //\n/"]),
    # White space: the last blank goes with the word, line ends stay together or alone.
    ("gpt-2", "a   b\n\n c", ["a", "  ", " b", "\n\n", " c"]),
    ("llama-bpe", "a   b \n\n c", ["a", "  ", " b", " \n\n", " c"]),
    ("deepseek-llm", "a\n\nb", ["a", "\n", "\n", "b"]),
    ("seed-coder", "a!\n", ["a", "!", "\n"]),
    ("bailingmoe", "a\n\nb", ["a", "\n\n", "b"]),
    ("jais-2", "a     b", ["a", "    ", " b"]),
    ("gpt-2", "a\u3000 b", ["a", "\u3000", " b"]),
    # Marks: part of the word, or a sign before it.
    ("qwen2", "क्षि", ["क", "्ष", "ि"]),
    ("qwen35", "क्षि", ["क्षि"]),
    # Scripts.
    ("deepseek-coder", "ab漢字c", ["ab", "漢字", "c"]),
    ("deepseek-v3", "ab漢字c", ["ab", "漢字", "c"]),
    ("kimi-k2", "ab漢字c", ["ab", "漢字", "c"]),
    ("bloom", "a b.c", ["a", " b", ".", "c"]),
    ("viking", "a b12", ["a", " b", "1", "2"]),
]


@cache
def splitter(name: str) -> pre_tokenizers.PreTokenizer:
    patterns = PRE_TOKENIZERS[name].patterns
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    )


def pieces(name: str, text: str) -> list[str]:
    return [piece for piece, _ in splitter(name).pre_tokenize_str(text)]


def test_the_promised_names_are_there() -> None:
    assert set(PROMISED.split()) <= set(PRE_TOKENIZERS)


@pytest.mark.parametrize(("name", "text", "expected"), CASES)
def test_pieces(name: str, text: str, expected: list[str]) -> None:
    assert pieces(name, text) == expected


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
@settings(max_examples=15, deadline=None)
@given(text=st.text(max_size=40))
def test_nothing_is_lost(name: str, text: str) -> None:
    assert "".join(pieces(name, text)) == text


@pytest.mark.parametrize("name", ["llama-bpe", "tekken", "glm4", "youtu", "minicpm5"])
def test_names_that_ignore_merges(name: str) -> None:
    assert PRE_TOKENIZERS[name].ignore_merges
