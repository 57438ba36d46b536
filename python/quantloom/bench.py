"""How fast a model prefills and decodes here."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantloom.errors import InvalidArgument

if TYPE_CHECKING:
    from quantloom.model import Model


@dataclass(frozen=True)
class BenchResult:
    """Medians of `bench`.

    Attributes:
        prompt_tokens, new_tokens: sizes of each run.
        prefill: prompt tokens per second.
        decode: new tokens per second.
        time_to_first_token: seconds from the call to the first token.
        prefill_runs, decode_runs: every run's figure, in order.
    """

    prompt_tokens: int
    new_tokens: int
    prefill: float
    decode: float
    time_to_first_token: float
    prefill_runs: list[float]
    decode_runs: list[float]


def bench(
    model: Model, *, prompt_tokens: int = 512, new_tokens: int = 128, repeat: int = 5
) -> BenchResult:
    """Generate `new_tokens` after a random prompt, `repeat` times after one warm-up.

    Raises:
        InvalidArgument: the sizes do not fit the context.
    """
    if prompt_tokens < 1 or new_tokens < 2 or repeat < 1:
        raise InvalidArgument("bench takes at least 1 prompt token, 2 new tokens and 1 repeat")
    if prompt_tokens + new_tokens > model.context_length:
        raise InvalidArgument(
            f"{prompt_tokens} + {new_tokens} tokens do not fit the context of "
            f"{model.context_length}",
            subject="prompt_tokens",
            limit=model.context_length,
        )
    random = np.random.default_rng(0)
    prefills, decodes, firsts = [], [], []
    for run in range(repeat + 1):
        # A new prompt each time, so that no run reuses the cache of the one before.
        prompt = random.integers(0, model.vocabulary_size, prompt_tokens).tolist()
        with model.session() as session:
            result = session.generate(
                prompt, max_new_tokens=new_tokens, temperature=0, ignore_eos=True
            )
        if run == 0:
            continue
        timings = result.timings
        prefills.append(prompt_tokens / timings.prefill_seconds)
        decodes.append((new_tokens - 1) / timings.decode_seconds)
        firsts.append(timings.prefill_seconds)
    return BenchResult(
        prompt_tokens,
        new_tokens,
        statistics.median(prefills),
        statistics.median(decodes),
        statistics.median(firsts),
        prefills,
        decodes,
    )
