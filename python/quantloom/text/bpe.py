"""Byte-level byte-pair encoding, built with Hugging Face `tokenizers` from a file's vocabulary."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, cast

from quantloom.errors import InvalidArgument, TokenizerError
from quantloom.text.pretokenizers import PRE_TOKENIZERS, PreTokenizer
from quantloom.text.vocabulary import CONTROL, UNKNOWN, Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@lru_cache(maxsize=1)
def byte_alphabet() -> dict[str, int]:
    """The printable character that byte-level BPE writes for each byte, with that byte.

    Printable bytes of Latin-1 stand for themselves; the others, in order, are U+0100 and on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if chr(byte) not in alphabet)
    alphabet.update({chr(0x100 + i): byte for i, byte in enumerate(tuple(others))})
    return alphabet


def find_pre_tokenizer(name: str | None) -> PreTokenizer:
    """The row of the table that `tokenizer.ggml.pre` names.

    Raises:
        TokenizerError: the name is not in the table, or the file gives none.
    """
    known = ", ".join(sorted(PRE_TOKENIZERS))
    key = "tokenizer.ggml.pre"
    if name is None:
        raise TokenizerError(
            f"{key} is missing, and the tokens depend on it; pass pre=NAME to choose one of: "
            f"{known}",
            subject=key,
        )
    if name not in PRE_TOKENIZERS:
        raise TokenizerError(f"{key} is {name!r}; the known ones are {known}", subject=key)
    return PRE_TOKENIZERS[name]


def checked_name(pre: Any, model: str) -> str:
    """The name of a pre-tokenizer that a caller asks for.

    Raises:
        InvalidArgument: it is not in the table, or the vocabulary's model uses none.
    """
    if not isinstance(pre, str) or pre not in PRE_TOKENIZERS:
        known = ", ".join(sorted(PRE_TOKENIZERS))
        raise InvalidArgument(f"pre is {pre!r}; the known ones are {known}", subject="pre")
    if model != "gpt2":
        raise InvalidArgument(
            f"pre is {pre!r}, but the file's tokenizer is {model!r}, which has no pre-tokenizer",
            subject="pre",
        )
    return pre


class ByteLevelMerges:
    """Turns text into ids by the ranked merges of a `gpt2` vocabulary."""

    def __init__(self, vocabulary: Vocabulary, pre_tokenizer: PreTokenizer) -> None:
        self._engine = _build(vocabulary, pre_tokenizer)
        self._tokens = vocabulary.tokens
        # Bytes that no token writes alone: the engine would leave them out without a word.
        self._missing = bytes(
            byte for letter, byte in byte_alphabet().items() if letter not in vocabulary.ids
        )

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; a character the vocabulary cannot write is a TokenizerError."""
        ids: list[int] = self._engine.encode(text, add_special_tokens=False).ids
        if self._missing:
            self._check(text, ids)
        return ids

    def _check(self, text: str, ids: list[int]) -> None:
        raw = text.encode()
        if len(raw.translate(None, self._missing)) == len(raw):
            return
        if sum(len(self._tokens[index]) for index in ids) != len(raw):
            lost = next(
                letter
                for letter in text
                if len(letter.encode().translate(None, self._missing)) != len(letter.encode())
            )
            raise TokenizerError(
                f"the vocabulary has no token for the bytes of {lost!r}", subject="text"
            )


def _build(vocabulary: Vocabulary, pre_tokenizer: PreTokenizer) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    ids = vocabulary.ids
    if pre_tokenizer.ignore_merges:
        # A piece of plain text must not turn into a control token because it reads like one.
        hidden = (CONTROL, UNKNOWN)
        ids = {text: i for text, i in ids.items() if vocabulary.types[i] not in hidden}
    merges = dict.fromkeys(vocabulary.merges)
    pairs = cast("list[tuple[str, str]]", [tuple(merge.split(" ")) for merge in merges])
    if set(map(len, pairs)) - {2}:
        _explain_form(vocabulary.merges)
    try:
        model = models.BPE(ids, pairs, ignore_merges=pre_tokenizer.ignore_merges)
    except Exception as error:
        _explain_parts(pairs, ids)
        raise TokenizerError(
            f"tokenizer.ggml.merges cannot be used: {error}", subject="tokenizer.ggml.merges"
        ) from error
    engine = Tokenizer(model)
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre_tokenizer.patterns
    ]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    engine.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return engine


def _explain_form(merges: list[str]) -> NoReturn:
    rank = next(rank for rank, merge in enumerate(merges) if merge.count(" ") != 1)
    raise TokenizerError(
        f"tokenizer.ggml.merges entry {rank} is {merges[rank]!r}; "
        "a merge is two tokens with one space between them",
        subject="tokenizer.ggml.merges",
        limit=2,
    )


def _explain_parts(pairs: list[tuple[str, str]], ids: dict[str, int]) -> None:
    for rank, (left, right) in enumerate(pairs):
        for text in (left, right, left + right):
            if text not in ids:
                raise TokenizerError(
                    f"tokenizer.ggml.merges entry {rank} is '{left} {right}', "
                    f"but {text!r} is not in the vocabulary",
                    subject="tokenizer.ggml.merges",
                    limit=len(ids),
                )
