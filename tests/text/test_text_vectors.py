"""Every text of every real vocabulary gives the token ids that its own model's tokenizer gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantloom.text import Tokenizer

NAMES = ("gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2")


@pytest.mark.parametrize("name", NAMES)
def test_vectors(name: str, shared_data: Path, real: Callable[[str], Tokenizer]) -> None:
    base = shared_data / "vocab" / f"ggml-vocab-{name}.gguf"
    texts = Path(f"{base}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = Path(f"{base}.out").read_text().split("\n")
    assert len(texts) == len(lines) >= 46
    tokenizer = real(name)
    for text, line in zip(texts, lines, strict=True):
        expected = [int(word) for word in line.split()]
        assert tokenizer.encode(text, add_special=False) == expected, text
        assert tokenizer.decode(expected) == text
        decoder = tokenizer.stream_decoder()
        assert "".join(map(decoder.push, expected)) + decoder.flush() == text


def test_special_tokens_of_real_files(real: Callable[[str], Tokenizer]) -> None:
    llama = real("llama-bpe")
    assert (llama.bos_id, llama.eos_id, llama.eot_id) == (128000, 128001, 128009)
    assert llama.stop_ids == {128001, 128009}
    assert llama.encode("hi<|eot_id|>") == [128000, 6151, 128009]
    assert llama.encode("<|eot_id|>", add_special=False, parse_special=False)[0] != 128009
    qwen = real("qwen2")
    assert qwen.stop_ids == {151643, 151645}
    assert not qwen.add_bos
    phi = real("phi-3")
    assert {2, 32000, 32007} == phi.stop_ids
    # Its special tokens take the white space that follows them.
    assert phi.encode("<|user|>\n hi", add_special=False) == phi.encode(
        "<|user|>hi", add_special=False
    )


def test_a_long_text_of_one_character(real: Callable[[str], Tokenizer]) -> None:
    for name in ("llama-spm", "llama-bpe"):
        for text in ("a" * 100_000, " " * 100_000, "\n" * 100_000):
            ids = real(name).encode(text, add_special=False)
            assert real(name).decode(ids) == text


@pytest.mark.parametrize("name", NAMES)
def test_from_gguf(name: str, shared_data: Path, real: Callable[[str], Tokenizer]) -> None:
    pytest.importorskip("quantloom._quantloom", reason="the extension module is not built")
    tokenizer = Tokenizer.from_gguf(shared_data / "vocab" / f"ggml-vocab-{name}.gguf")
    text = " Hello, y'all! 3333 <s>\n"
    assert tokenizer.encode(text) == real(name).encode(text)
    assert tokenizer.stop_ids == real(name).stop_ids
