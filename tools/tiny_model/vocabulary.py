"""The byte-level BPE vocabulary, trained on generated text; digits are tokens of their own."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from . import corpus

SIZE = 3072
PRE_TOKENIZER = "qwen2"
DOCUMENTS = 60_000

# What the GGUF name "qwen2" stands for: contractions, words, single digits, punctuation, spaces.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL = re.compile("|".join(map(re.escape, corpus.SPECIAL_TOKENS)))


def train(seed: int, documents: int = DOCUMENTS, size: int = SIZE) -> Tokenizer:
    """Trains the vocabulary; the special tokens get the first ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(corpus.SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    text = itertools.islice(corpus.documents(seed), documents)
    tokenizer.train_from_iterator((_SPECIAL.split(document) for document in text), trainer)
    if tokenizer.get_vocab_size() != size:
        raise ValueError(f"the vocabulary has {tokenizer.get_vocab_size()} tokens, not {size}")
    return tokenizer


def save(tokenizer: Tokenizer, path: Path) -> None:
    tokenizer.save(str(path))


def load(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))
