"""Perplexity of a model on a text: exp of the mean negative log-likelihood of its tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantloom import arguments
from quantloom.errors import InvalidArgument, NumericsError

if TYPE_CHECKING:
    from quantloom.model import Model


@dataclass(frozen=True)
class PerplexityResult:
    """What `perplexity` measured.

    Attributes:
        perplexity: exp(mean negative log-likelihood), per token.
        standard_error: of `perplexity`, by the delta method over the scored tokens.
        tokens: how many tokens were scored.
        windows: how many windows of `context` tokens were read.
        context: tokens per window.
    """

    perplexity: float
    standard_error: float
    tokens: int
    windows: int
    context: int


def perplexity(
    model: Model,
    text: str,
    *,
    context: int = 512,
    max_windows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PerplexityResult:
    """Score `text` in windows of `context` tokens; the second half of each window counts.

    Every scored token has at least context / 2 tokens before it. A BOS token replaces the first
    token of each window where the vocabulary has add_bos. Names of control tokens in the text are
    text.

    Raises:
        InvalidArgument: a context below 8 or above the model's, a `max_windows` below 1, one that
            is no integer, a text shorter than one window, or a `progress` that is no function.
        NumericsError: a logit is NaN or Inf, or the perplexity is above what a float holds.
    """
    context = arguments.integer("context", context, 8, model.context_length)
    if max_windows is not None:
        max_windows = arguments.integer("max_windows", max_windows, 1)
    arguments.check_progress(progress)
    tokenizer = model._require_tokenizer()
    tokens = tokenizer.encode(text, parse_special=False)
    windows = len(tokens) // context
    if windows < 1:
        raise InvalidArgument(
            f"the text has {len(tokens)} tokens, fewer than one window of {context}",
            subject="text",
            limit=context,
        )
    if max_windows is not None:
        windows = min(windows, max_windows)
    bos = tokenizer.bos_id if tokenizer.add_bos else None
    first = context // 2
    losses: list[np.ndarray] = []
    for window in range(windows):
        piece = list(tokens[window * context : (window + 1) * context])
        if bos is not None:
            piece[0] = bos
        logits = model.logits(piece)[first - 1 : -1].astype(np.float64)
        peak = logits.max(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):  # what is not finite is refused below
            log_sum = peak[:, 0] + np.log(np.exp(logits - peak).sum(axis=1))
        chosen = logits[np.arange(context - first), piece[first:]]
        loss = log_sum - chosen
        if not np.isfinite(loss).all():
            raise NumericsError(f"the logits of window {window} are not finite")
        losses.append(loss)
        if progress is not None:
            progress(window + 1, windows)
    every = np.concatenate(losses)
    mean = float(every.mean())
    error = float(every.std(ddof=1)) / math.sqrt(every.size)
    try:
        value = math.exp(mean)
    except OverflowError:
        raise NumericsError(
            f"the mean negative log-likelihood is {mean:g}, whose exponential no float holds"
        ) from None
    return PerplexityResult(value, value * error, int(every.size), windows, context)
