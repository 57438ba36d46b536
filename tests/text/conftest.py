"""Tokenizers of small vocabularies, and of the real ones that lie beside the project."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from gguf_metadata import read_metadata
from vocabularies import bpe_metadata, spm_metadata

from quantloom.text import Tokenizer


@pytest.fixture(scope="session")
def bpe() -> Tokenizer:
    return Tokenizer.from_metadata(bpe_metadata())


@pytest.fixture(scope="session")
def spm() -> Tokenizer:
    return Tokenizer.from_metadata(spm_metadata())


@pytest.fixture(scope="session")
def real(shared_data: Path) -> Callable[[str], Tokenizer]:
    @cache
    def load(name: str) -> Tokenizer:
        path = shared_data / "vocab" / f"ggml-vocab-{name}.gguf"
        return Tokenizer.from_metadata(read_metadata(path))

    return load
