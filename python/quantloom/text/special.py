"""Special tokens inside text: found by their names, with the plain text between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from quantloom.text.vocabulary import CONTROL, UNKNOWN, USER_DEFINED, Vocabulary

SPECIAL_TYPES = (CONTROL, UNKNOWN)
PARSED_TYPES = (CONTROL, UNKNOWN, USER_DEFINED)
# Special tokens of Phi-3 take the white space that follows; no metadata key says so.
_STRIPPING_MODELS = ("phi-3", "phi3")
_NOT_STRIPPING = ("<unk>", "<s>", "<|endoftext|>")


def takes_white_space(metadata: Mapping[str, Any]) -> bool:
    """Whether the special tokens of a file's model take the white space that follows them."""
    name = str(metadata.get("general.name", "")).lower()
    return any(mark in name for mark in _STRIPPING_MODELS)


def name_pattern(
    vocabulary: Vocabulary, kinds: tuple[int, ...], fits: Callable[[str], bool] = bool
) -> re.Pattern[str] | None:
    """The names of the tokens of these types that fit, longer ones first; None for no names."""
    texts = [
        text
        for text, kind in zip(vocabulary.tokens, vocabulary.types, strict=False)
        if kind in kinds and fits(text)
    ]
    if not texts:
        return None
    texts.sort(key=len, reverse=True)
    return re.compile("|".join(map(re.escape, texts)))


def split_at_names(
    text: str, names: re.Pattern[str] | None, strips: bool
) -> Iterator[tuple[str, bool]]:
    """The pieces of a text in order, each with whether it is a name; none is empty.

    Args:
        names: of `name_pattern`.
        strips: leave out white space behind names, as `takes_white_space` says.
    """
    position = 0
    for match in names.finditer(text) if names else ():
        if match.start() < position:
            continue
        if match.start() > position:
            yield text[position : match.start()], False
        yield match[0], True
        position = match.end()
        if strips and match[0] not in _NOT_STRIPPING:
            while position < len(text) and text[position].isspace():
                position += 1
    if position < len(text):
        yield text[position:], False
