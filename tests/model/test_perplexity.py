"""Perplexity against a float64 sum over each window, and what has none."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

import quantloom
from quantloom.errors import InvalidArgument, NumericsError
from quantloom.perplexity import PerplexityResult, perplexity

TEXT = "One day, Lily went to the park. She saw a big red ball and a small dog. " * 3


def losses(model: quantloom.Model, windows: list[list[int]]) -> npt.NDArray[np.float64]:
    """Of the second half of each window, token by token."""
    found = []
    for window in windows:
        logits = model.logits(window).astype(np.float64)
        for place in range(len(window) // 2, len(window)):
            row = logits[place - 1]
            found.append(np.logaddexp.reduce(row) - row[window[place]])
    return np.array(found)


@pytest.mark.parametrize("context", [8, 9, 16])
def test_against_float64(context: int) -> None:
    with quantloom.load(device="cpu") as model:
        tokens = model.tokenize(TEXT)
        bos = tokens[0]
        windows = [tokens[i : i + context] for i in range(0, len(tokens), context)]
        windows = [[bos, *window[1:]] for window in windows if len(window) == context]
        assert len(windows) > 2
        for count in (1, 2, len(windows)):
            every = losses(model, windows[:count])
            seen: list[tuple[int, int]] = []
            found = perplexity(
                model,
                TEXT,
                context=context,
                max_windows=count,
                progress=lambda done, total, seen=seen: seen.append((done, total)),  # type: ignore[misc]
            )
            value = np.exp(every.mean())
            assert found.perplexity == pytest.approx(value, rel=1e-12)
            error = value * every.std(ddof=1) / np.sqrt(len(every))
            assert found.standard_error == pytest.approx(error, rel=1e-10)
            assert (found.tokens, found.windows, found.context) == (len(every), count, context)
            assert seen == [(i + 1, count) for i in range(count)]
        assert perplexity(model, TEXT, context=context) == found


@dataclasses.dataclass
class Digits:
    """A tokenizer of ten tokens, the digits of a text, and its two ends."""

    bos_id: int | None
    add_bos: bool
    add_eos: bool

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        assert not parse_special  # a text's names of control tokens are text
        first = [self.bos_id] if self.add_bos and self.bos_id is not None else []
        return first + [int(digit) for digit in text] + [9] * self.add_eos


class Constant:
    """A model whose logits are `logit` for token 0, else 0."""

    context_length = 64

    def __init__(self, logit: float = 0.0, tokenizer: Digits | None = None) -> None:
        self.logit = logit
        self.tokenizer = tokenizer or Digits(None, False, False)
        self.windows: list[list[int]] = []

    def _require_tokenizer(self) -> Digits:
        return self.tokenizer

    def logits(self, tokens: list[int]) -> npt.NDArray[np.float32]:
        self.windows.append(tokens)
        logits = np.zeros((len(tokens), 10), np.float32)
        logits[:, 0] = self.logit
        return logits


def measure(model: Constant, text: str, **options: Any) -> PerplexityResult:
    return perplexity(cast(quantloom.Model, model), text, context=8, **options)


@pytest.mark.parametrize(
    ("ends", "windows"),
    [
        (Digits(8, True, False), [[8, 1, 2, 3, 4, 5, 6, 7], [8, 2, 3, 4, 5, 6, 7, 1]]),
        (Digits(None, True, False), [[1, 2, 3, 4, 5, 6, 7, 1], [2, 3, 4, 5, 6, 7, 1, 2]]),
        (Digits(8, False, True), [[1, 2, 3, 4, 5, 6, 7, 1], [2, 3, 4, 5, 6, 7, 1, 2]]),
        (Digits(8, False, False), [[1, 2, 3, 4, 5, 6, 7, 1], [2, 3, 4, 5, 6, 7, 1, 2]]),
    ],
)
def test_only_bos_replaces_a_token(ends: Digits, windows: list[list[int]]) -> None:
    model = Constant(tokenizer=ends)
    assert measure(model, "1234567" * 3).perplexity == pytest.approx(10, rel=1e-12)
    assert model.windows == windows


@pytest.mark.parametrize(
    ("logit", "words"),
    [
        (1e30, "the mean negative log-likelihood is 1e+30, whose exponential no float holds"),
        (np.inf, "the logits of window 0 are not finite"),
        (np.nan, "the logits of window 0 are not finite"),
    ],
)
def test_what_has_no_perplexity(logit: float, words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NumericsError) as caught:
            measure(Constant(logit), "1234567" * 3)
    assert str(caught.value) == words


def test_a_token_that_is_sure() -> None:
    assert measure(Constant(1e30), "0" * 16).perplexity == 1
    assert measure(Constant(-np.inf), "1" * 16).perplexity == pytest.approx(9, rel=1e-12)
    with pytest.raises(InvalidArgument, match="the text has 7 tokens, fewer than one window of 8"):
        measure(Constant(), "1234567")
