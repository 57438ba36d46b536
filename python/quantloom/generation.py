"""What a generation takes and what it gives: options, pieces of a stream, the result."""

from __future__ import annotations

import html
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from quantloom import arguments
from quantloom.errors import InvalidArgument

if TYPE_CHECKING:
    from quantloom.text import Tokenizer

_REALS = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)
_MAX_SEED = 2**64 - 1
_MAX_INT32 = 2**31 - 1


class GenerationKeywords(TypedDict, total=False):
    """The keywords of `generate`, `stream` and `chat`, in the order they take effect.

    Attributes:
        max_new_tokens: 256 by default.
        logit_bias: token id to a number that is added to its logit; -inf bans it.
        repetition_penalty, frequency_penalty, presence_penalty: 1, 0 and 0 are off; over the last
            `penalty_window` tokens (64 by default), the prompt's among them.
        temperature: 0, the default, is greedy.
        top_k: keep the k likeliest tokens; 0 is off.
        top_p: keep the likeliest tokens of this mass; 1 is off.
        min_p: drop tokens below this share of the likeliest; 0 is off.
        typical_p: keep the most typical tokens of this mass; 1 is off.
        seed: the same seed, request and device give the same text; None draws one.
        stop: strings that end the text, and are not part of it; the name of a control token stands
            for the token.
        stop_tokens: token ids that end it, beside the model's own.
        ignore_eos: go on past the model's own end tokens.
        logprobs: give each token's log-probability and this many likeliest ones' (0 to 20).
        speculate: "ngram" drafts tokens from what followed the same words before, in the prompt or
            in the output, and checks several in one pass; for plain greedy generation on the CPU,
            without penalties, bias or logprobs. A choice between logits closer than the rounding of
            such a pass can move them is left to the usual one-token step. DeviceError where layers
            are on a GPU. None, the default, is off.
    """

    max_new_tokens: int
    logit_bias: Mapping[int, float] | None
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    penalty_window: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    seed: int | None
    stop: str | Sequence[str]
    stop_tokens: Sequence[int]
    ignore_eos: bool
    logprobs: int | None
    speculate: str | None


@dataclass(frozen=True)
class Request:
    """Checked options, in the form the C++ session takes."""

    max_new_tokens: int
    stop: list[str]
    stop_tokens: list[int]
    logprobs: int
    seed: int
    sampler: dict[str, Any]

    @staticmethod
    def of(keywords: Mapping[str, Any], tokenizer: Tokenizer | None) -> Request:
        """Checks keywords, for a model with this tokenizer.

        Raises:
            TypeError: a keyword that is none of GenerationKeywords.
            InvalidArgument: a value of the wrong type.
        """
        unknown = sorted(set(keywords) - set(GenerationKeywords.__annotations__))
        if unknown:
            known = ", ".join(GenerationKeywords.__annotations__)
            raise TypeError(
                f"unknown generation option {unknown[0]!r}; there are {known}. Variables of a chat "
                "template, such as tools, go to tokenizer.encode_messages(), whose tokens are a "
                "prompt"
            )
        sampler: dict[str, Any] = {}
        for name in _REALS:
            if name in keywords:
                sampler[name] = arguments.real(name, keywords[name])
        for name in ("top_k", "penalty_window"):
            if name in keywords:
                sampler[name] = arguments.integer(name, keywords[name])
        if keywords.get("logit_bias") is not None:
            sampler["logit_bias"] = arguments.logit_bias(keywords["logit_bias"])
        seed = keywords.get("seed")
        seed = (
            secrets.randbits(32) if seed is None else arguments.integer("seed", seed, 0, _MAX_SEED)
        )
        sampler["seed"] = seed
        logprobs = keywords.get("logprobs")
        logprobs = -1 if logprobs is None else arguments.integer("logprobs", logprobs, 0, 20)
        sampler["logprobs"] = logprobs
        speculate = keywords.get("speculate")
        # An array answers a comparison with an array.
        if speculate is not None and not (isinstance(speculate, str) and speculate == "ngram"):
            raise InvalidArgument(
                f"speculate is {speculate!r}; there are 'ngram' and None", subject="speculate"
            )
        sampler["speculate"] = speculate is not None
        ends = keywords.get("stop_tokens")
        stop_tokens = {
            arguments.integer("stop_tokens", token, 0, _MAX_INT32)
            for token in arguments.items("stop_tokens", () if ends is None else ends)
        }
        ignore_eos = arguments.flag("ignore_eos", keywords.get("ignore_eos", False))
        stop = _stop_strings(keywords.get("stop", ()))
        if tokenizer is not None:
            # Control tokens are no part of the text, so no string finds their names in it.
            named = (tokenizer.token_id(string) for string in stop)
            stop_tokens |= {i for i in named if i is not None and tokenizer.is_special(i)}
            if not ignore_eos:
                stop_tokens |= tokenizer.stop_ids
        return Request(
            max_new_tokens=arguments.integer(
                "max_new_tokens", keywords.get("max_new_tokens", 256), 0, _MAX_INT32
            ),
            stop=stop,
            stop_tokens=sorted(stop_tokens),
            logprobs=logprobs,
            seed=seed,
            sampler=sampler,
        )


def _stop_strings(stop: Any) -> list[str]:
    if stop is None:
        return []
    strings = [stop] if isinstance(stop, str) else arguments.items("stop", stop)
    for string in strings:
        if not isinstance(string, str) or not arguments.text("stop", string):
            raise InvalidArgument(
                f"stop must hold strings of one character at least, not {string!r}", subject="stop"
            )
    return strings


@dataclass(frozen=True)
class Candidate:
    """A token that could have been chosen.

    Attributes:
        token: its id.
        text: what it stands for; empty where the model has no tokenizer.
        logprob: its natural log-probability in the model's own distribution.
    """

    token: int
    text: str
    logprob: float


@dataclass(frozen=True)
class TokenLogprobs(Candidate):
    """The token that was chosen, with the likeliest ones at its place.

    Log-probabilities are of the model's own distribution, before penalties and temperature.

    Attributes:
        top: the likeliest tokens in descending order, as many as were asked for.
    """

    top: tuple[Candidate, ...]


@dataclass(frozen=True)
class Piece:
    """One step of a stream.

    Attributes:
        text: text that is complete with this token; often a word, sometimes empty.
        token: id of the token, or None for text that was held back until the end.
        logprobs: where they were asked for.
    """

    text: str
    token: int | None
    logprobs: TokenLogprobs | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Timings:
    """How long a generation took.

    Attributes:
        prompt_tokens: tokens of the prompt.
        reused_tokens: of those, how many a session's cache held already.
        new_tokens: tokens that were generated, an end token among them.
        prefill_seconds: from the start to the first token.
        decode_seconds: from the first token to the last.
        drafted_tokens: that a speculating generation guessed and checked.
        accepted_tokens: of those, how many were right.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    new_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second; 0 where nothing was timed."""
        computed = self.prompt_tokens - self.reused_tokens
        return computed / self.prefill_seconds if self.prefill_seconds > 0 else 0.0

    @property
    def decode_rate(self) -> float:
        """New tokens per second after the first; 0 where nothing was timed."""
        return (self.new_tokens - 1) / self.decode_seconds if self.decode_seconds > 0 else 0.0


@dataclass(frozen=True)
class GenerationResult:
    """What a generation gave.

    Attributes:
        text: without the prompt, and without a stop string; empty where there is no tokenizer.
        tokens: ids of all new tokens, without the token that ended the generation; those of a stop
            string are among them.
        finish_reason: "stop" (a stop string or token), "length" (max_new_tokens, or the context is
            full) or "cancelled".
        logprobs: one entry a token, where they were asked for, or None.
        timings: seconds and tokens.
        seed: repeats this generation, with the same request.
    """

    text: str
    tokens: list[int]
    finish_reason: str
    logprobs: list[TokenLogprobs] | None
    timings: Timings
    seed: int

    def __str__(self) -> str:
        return self.text

    def _summary(self) -> str:
        return (
            f"{len(self.tokens)} tokens, finish_reason={self.finish_reason!r}, "
            f"{self.timings.decode_rate:,.1f} tokens/s"
        )

    def __repr__(self) -> str:
        return f"<GenerationResult {self.text!r}: {self._summary()}>"

    def _repr_html_(self) -> str:
        return (
            f'<div style="white-space: pre-wrap">{html.escape(self.text)}</div>'
            f"<small>{html.escape(self._summary())}</small>"
        )
