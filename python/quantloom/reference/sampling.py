"""How a token is chosen, in plain NumPy: the order, the filters and the draw.

Bias, penalties, temperature, top-k, top-p, min-p, typical-p, then the highest sum of logit and
Gumbel noise. The noise comes from a counter-based generator, so that a choice depends on the seed,
the position and the logits alone.

Sources: repetition penalty (arXiv 1909.05858), frequency and presence penalties (OpenAI API
reference), top-p (arXiv 1904.09751), min-p (arXiv 2407.01082), typical sampling (arXiv 2202.00666),
Philox (Salmon et al., SC 2011), Gumbel-max (Gumbel 1954).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_MASK = 0xFFFFFFFF


def philox(key: int, counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10: four 32-bit words for a 64-bit key and a counter of four words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key & _MASK, key >> 32
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & _MASK, (a >> 32) ^ c3 ^ k1, a & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def gumbel(seed: int, token: int, position: int) -> float:
    """The noise on the logit of `token` where the token at `position` is chosen."""
    word = philox(seed, (token // 4, position, 0, 0))[token % 4]
    return float(-np.log(-np.log((word + 0.5) / 2**32)))


def log_softmax(logits: npt.ArrayLike) -> Array:
    """Natural log-probabilities."""
    x = np.asarray(logits, np.float64)
    peak = x.max()
    result: Array = x - peak - np.log(np.exp(x - peak).sum())
    return result


def adjust(
    logits: npt.ArrayLike,
    history: Sequence[int],
    *,
    logit_bias: Mapping[int, float] | None = None,
    repetition_penalty: float = 1.0,
    frequency_penalty: float = 0.0,
    presence_penalty: float = 0.0,
    penalty_window: int = 64,
) -> npt.NDArray[np.float32]:
    """Logits with bias, then penalties on the last `penalty_window` tokens of `history`."""
    x = np.array(logits, np.float32)
    for token, bias in (logit_bias or {}).items():
        x[token] += np.float32(bias)
    recent = history[max(0, len(history) - penalty_window) :]
    for token, times in Counter(recent).items():
        factor = np.float32(repetition_penalty)
        x[token] = x[token] / factor if x[token] > 0 else x[token] * factor
        x[token] -= np.float32(times) * np.float32(frequency_penalty) + np.float32(presence_penalty)
    return x


def keep(
    logits: npt.NDArray[np.float32],
    *,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    typical_p: float = 1.0,
) -> list[int]:
    """Token ids that pass the filters, from logits already divided by the temperature."""
    ids = np.lexsort((np.arange(len(logits)), -logits.astype(np.float64)))
    ids = ids[logits[ids] > -np.inf]
    if top_k > 0:
        ids = ids[:top_k]
    mass = np.exp(logits[ids].astype(np.float64) - float(logits.max()))
    if top_p < 1:
        count = int(np.searchsorted(np.cumsum(mass), np.float32(top_p) * mass.sum())) + 1
        ids, mass = ids[:count], mass[:count]
    passing = mass >= np.float32(min_p)
    ids, mass = ids[passing], mass[passing]
    if typical_p < 1:
        surprise = -np.log(mass / mass.sum())
        entropy = float((mass / mass.sum() * surprise).sum())
        order = np.argsort(np.abs(surprise - entropy), kind="stable")
        running = np.cumsum(mass[order])
        count = int(np.searchsorted(running, np.float32(typical_p) * mass.sum())) + 1
        ids = ids[order[:count]]
    return [int(i) for i in ids]


def choose(
    logits: npt.ArrayLike,
    history: Sequence[int],
    *,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    typical_p: float = 1.0,
    seed: int = 0,
    logit_bias: Mapping[int, float] | None = None,
    repetition_penalty: float = 1.0,
    frequency_penalty: float = 0.0,
    presence_penalty: float = 0.0,
    penalty_window: int = 64,
) -> int:
    """The token after `history` (whose length is the position) from its raw logits."""
    x = adjust(
        logits,
        history,
        logit_bias=logit_bias,
        repetition_penalty=repetition_penalty,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        penalty_window=penalty_window,
    )
    if temperature == 0:
        return int(x.argmax())
    x = x / np.float32(temperature)
    kept = sorted(keep(x, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p))
    scores = [float(x[token]) + gumbel(seed, token, len(history)) for token in kept]
    return kept[int(np.argmax(scores))]
