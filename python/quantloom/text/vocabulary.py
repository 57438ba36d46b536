"""The vocabulary of a GGUF file, read from its metadata and checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from quantloom.errors import TokenizerError

NORMAL = 1
UNKNOWN = 2
CONTROL = 3
USER_DEFINED = 4
UNUSED = 5
BYTE = 6
_TOKEN_TYPES = frozenset(range(7))

SERVED_MODELS = ("gpt2", "llama", "no_vocab")

_SPECIAL_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "eot": "tokenizer.ggml.eot_token_id",
    "eom": "tokenizer.ggml.eom_token_id",
    "unknown": "tokenizer.ggml.unknown_token_id",
    "padding": "tokenizer.ggml.padding_token_id",
    "separator": "tokenizer.ggml.seperator_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
    "fim_pad": "tokenizer.ggml.fim_pad_token_id",
    "fim_repository": "tokenizer.ggml.fim_rep_token_id",
    "fim_separator": "tokenizer.ggml.fim_sep_token_id",
}
# Converters wrote ids such as 2**32 - 1 for roles that a model has no token for; neither text nor
# the end of a generation hangs on these alone.
_OPTIONAL_ROLES = ("padding", "separator", "mask", "fim_pad", "fim_repository", "fim_separator")
_SENTENCEPIECE_DEFAULTS = {"bos": 1, "eos": 2, "unknown": 0}

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Vocabulary:
    """What `tokenizer.ggml.*` says, with every rule of the format checked.

    Attributes:
        model: "gpt2" (byte-level BPE), "llama" (SentencePiece style) or "no_vocab".
        pre: the name of the pre-tokenizer, or None where the model has none.
        tokens: text of each token as the file writes it; an id is an index into it.
        ids: the reverse of `tokens`, without the empty text.
        types: one of NORMAL .. BYTE per token.
        scores: merge scores ("llama"), or empty.
        merges: pairs "left right" in order of rank ("gpt2"), or empty.
        byte_ids: id of each byte token by the value of its byte.
        special: ids by role, such as "bos" and "eos"; a role the file lacks is absent, and so is
            one of padding, separator, mask and fill-in-the-middle whose id is past the vocabulary.
        add_bos, add_eos: what the file says, or None where it says nothing.
        vocab_size: number of ids; for "no_vocab" what the model's own key says, or 0.
    """

    model: str
    pre: str | None
    tokens: list[str]
    ids: dict[str, int]
    types: list[int]
    scores: list[float]
    merges: list[str]
    byte_ids: dict[int, int]
    special: dict[str, int]
    add_bos: bool | None
    add_eos: bool | None
    add_space_prefix: bool
    remove_extra_whitespaces: bool
    vocab_size: int


def read_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """Reads and checks the `tokenizer.ggml.*` keys of a file's metadata.

    Raises:
        TokenizerError: a key is missing, of the wrong type or out of its range; `subject` is the
            key and `limit` the bound that was passed.
    """
    model = _text(metadata, "tokenizer.ggml.model")
    if model is None:
        _fail("tokenizer.ggml.model", "is missing: the file has no tokenizer")
    if model not in SERVED_MODELS:
        served = ", ".join(SERVED_MODELS)
        _fail("tokenizer.ggml.model", f"is {model!r}; the tokenizers served are {served}")
    if model == "no_vocab":
        return _no_vocabulary(metadata)

    tokens = _strings(metadata, "tokenizer.ggml.tokens")
    if not tokens:
        _fail("tokenizer.ggml.tokens", "is empty: a vocabulary has one token at least", limit=1)
    ids = _index(tokens)
    types, byte_ids = _types(metadata, tokens)
    scores = _scores(metadata, len(tokens), required=model == "llama")
    merges = _strings(metadata, "tokenizer.ggml.merges") if model == "gpt2" else []
    special = _special(metadata, len(tokens), _SENTENCEPIECE_DEFAULTS if model == "llama" else {})
    if "tokenizer.ggml.token_type" not in metadata:
        for role in ("bos", "eos", "unknown"):
            if role in special:
                types[special[role]] = CONTROL
    add_bos = _flag(metadata, "tokenizer.ggml.add_bos_token")
    add_eos = _flag(metadata, "tokenizer.ggml.add_eos_token")
    for name, wanted in (("bos", add_bos), ("eos", add_eos)):
        if wanted and name not in special:
            _fail(
                f"tokenizer.ggml.add_{name}_token",
                f"is true, but {_SPECIAL_KEYS[name]} names no token",
            )
    prefix = _flag(metadata, "tokenizer.ggml.add_space_prefix")
    return Vocabulary(
        model=model,
        pre=_text(metadata, "tokenizer.ggml.pre"),
        tokens=tokens,
        ids=ids,
        types=types,
        scores=scores,
        merges=merges,
        byte_ids=byte_ids,
        special=special,
        add_bos=add_bos,
        add_eos=add_eos,
        add_space_prefix=model == "llama" if prefix is None else prefix,
        remove_extra_whitespaces=bool(_flag(metadata, "tokenizer.ggml.remove_extra_whitespaces")),
        vocab_size=len(tokens),
    )


def _no_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    key = f"{metadata.get('general.architecture')}.vocab_size"
    size = metadata.get(key, 0)
    if not _is_int(size) or size < 0:
        _fail(key, f"must be an integer of at least 0, not {size!r}", limit=0)
    return Vocabulary(
        "no_vocab", None, [], {}, [], [], [], {}, {}, None, None, False, False, vocab_size=size
    )


def _fail(key: str, what: str, *, limit: int | None = None) -> NoReturn:
    raise TokenizerError(f"{key} {what}", subject=key, limit=limit)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(metadata: Mapping[str, Any], key: str) -> str | None:
    value = metadata.get(key)
    if value is not None and not isinstance(value, str):
        _fail(key, f"must be a string, not {type(value).__name__}")
    return value


def _flag(metadata: Mapping[str, Any], key: str) -> bool | None:
    value = metadata.get(key)
    if value is not None and not isinstance(value, bool):
        _fail(key, f"must be true or false, not {value!r}")
    return value


def _array(metadata: Mapping[str, Any], key: str) -> list[Any] | None:
    value = metadata.get(key)
    if value is None:
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        _fail(key, f"must be an array, not {type(value).__name__}")
    return list(value)


def _strings(metadata: Mapping[str, Any], key: str) -> list[str]:
    values = _array(metadata, key)
    if values is None:
        _fail(key, "is missing")
    if set(map(type, values)) - {str}:
        index = next(i for i, value in enumerate(values) if type(value) is not str)
        _fail(key, f"must hold strings; entry {index} is {type(values[index]).__name__}")
    return values


def _index(tokens: list[str]) -> dict[str, int]:
    ids = {text: index for index, text in enumerate(tokens)}
    empty = tokens.count("")
    if len(ids) + max(0, empty - 1) != len(tokens):
        first: dict[str, int] = {}
        for index, text in enumerate(tokens):
            if text and text in first:
                _fail(
                    "tokenizer.ggml.tokens",
                    f"has {text!r} twice, as tokens {first[text]} and {index}",
                    limit=1,
                )
            first[text] = index
    ids.pop("", None)
    return ids


def _types(metadata: Mapping[str, Any], tokens: list[str]) -> tuple[list[int], dict[int, int]]:
    key = "tokenizer.ggml.token_type"
    types = _array(metadata, key)
    if types is None:
        return [NORMAL] * len(tokens), {}
    if len(types) != len(tokens):
        _fail(key, f"has {len(types)} entries for {len(tokens)} tokens", limit=len(tokens))
    if set(map(type, types)) - {int} or set(types) - _TOKEN_TYPES:
        index = next(i for i, t in enumerate(types) if type(t) is not int or t not in _TOKEN_TYPES)
        _fail(key, f"entry {index} is {types[index]!r}; a token type is 0 to 6", limit=6)
    byte_ids: dict[int, int] = {}
    for index, kind in enumerate(types):
        if kind != BYTE:
            continue
        match = _BYTE_TOKEN.fullmatch(tokens[index])
        if match is None:
            _fail(
                "tokenizer.ggml.tokens",
                f"token {index} is {tokens[index]!r}, of type byte: "
                "it must be <0xHH> with two hexadecimal digits",
                limit=2,
            )
        value = int(match[1], 16)
        if value in byte_ids:
            _fail(
                "tokenizer.ggml.tokens",
                f"has the byte 0x{value:02X} twice, as tokens {byte_ids[value]} and {index}",
                limit=1,
            )
        byte_ids[value] = index
    return types, byte_ids


def _scores(metadata: Mapping[str, Any], count: int, *, required: bool) -> list[float]:
    key = "tokenizer.ggml.scores"
    scores = _array(metadata, key)
    if scores is None:
        if required:
            _fail(key, "is missing: merges of this vocabulary go by score")
        return []
    if len(scores) != count:
        _fail(key, f"has {len(scores)} entries for {count} tokens", limit=count)
    if set(map(type, scores)) - {float, int}:
        index = next(i for i, s in enumerate(scores) if type(s) not in (float, int))
        _fail(key, f"must hold numbers; entry {index} is {type(scores[index]).__name__}")
    if math.isnan(math.fsum(s for s in scores if not math.isinf(s))):
        index = next(i for i, s in enumerate(scores) if math.isnan(s))
        _fail(key, f"entry {index} is not a number")
    return scores


def _special(
    metadata: Mapping[str, Any], count: int, defaults: Mapping[str, int]
) -> dict[str, int]:
    special: dict[str, int] = {}
    for role, key in _SPECIAL_KEYS.items():
        value = metadata.get(key)
        if value is None:
            if role not in defaults:
                continue
            value = defaults[role]
            if value >= count:
                _fail(
                    key,
                    f"is absent, and its default {value} is past the vocabulary of {count} tokens",
                    limit=count,
                )
        elif not _is_int(value):
            _fail(key, f"must be an integer, not {value!r}")
        elif not 0 <= value < count:
            if role in _OPTIONAL_ROLES:
                continue
            _fail(key, f"is {value}, past the vocabulary of {count} tokens", limit=count)
        special[role] = value
    return special
