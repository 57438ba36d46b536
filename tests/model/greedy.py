"""What tests of generated tokens share: their comparison with float64's logits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quantloom.generation import TokenLogprobs

Array = npt.NDArray[Any]


def check_greedy(tokens: Sequence[int], rows: Array, bound: float) -> None:
    """Each token is the likeliest of its row of logits.

    Or the second, where the two lie closer than `bound` times the row's norm; each of these is a
    warning, so that whoever reads the run sees where and how close.
    """
    assert len(tokens) == len(rows) and np.isfinite(rows).all()
    for position, (token, logits) in enumerate(zip(tokens, rows, strict=True)):
        second, best = np.argsort(logits)[-2:].tolist()
        if token == best:
            continue
        margin = float((logits[best] - logits[second]) / np.linalg.norm(logits))
        said = f"new token {position} is {token}; float64's two best are {best} and {second}, "
        said += f"{margin:.1e} of the logits' norm apart"
        assert token == second and margin <= bound, said
        warnings.warn(said, stacklevel=2)


def logprobs_error(found: Sequence[TokenLogprobs], rows: Array) -> float:
    """How far the likeliest tokens' log-probabilities lie from those of float64's logits.

    A root mean square over that of the logits; NaN where a value is NaN.
    """
    tokens = np.array([[candidate.token for candidate in entry.top] for entry in found])
    given = np.array([[candidate.logprob for candidate in entry.top] for entry in found])
    shifted = rows - rows.max(axis=-1, keepdims=True)
    table = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    errors = given - np.take_along_axis(table, tokens, axis=1)
    return float(np.sqrt(np.mean(errors**2) / np.mean(rows**2)))
