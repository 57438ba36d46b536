"""The CPU's sampler against its NumPy definition, stage by stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantloom import InvalidArgument, NumericsError, _quantloom
from quantloom.reference import sampling

VOCABULARY = 300


def logits_of(seed: int, spread: float = 3.0, size: int = VOCABULARY) -> np.ndarray:
    return (spread * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


def choose(logits: np.ndarray, history: list[int], **options: Any) -> int:
    bias = options.get("logit_bias")
    if bias is not None:
        options = options | {"logit_bias": list(bias.items())}
    token: int = _quantloom.sample(logits, history, options)[0]
    return token


HISTORY = [5, 9, 9, 120, 7, 9, 44, 5]

STAGES: dict[str, dict[str, Any]] = {
    "plain draw": {"temperature": 1.0},
    "cold": {"temperature": 0.2},
    "hot": {"temperature": 5.0},
    "top_k": {"temperature": 1.0, "top_k": 5},
    "top_k 1": {"temperature": 3.0, "top_k": 1},
    "top_k past the vocabulary": {"temperature": 1.0, "top_k": 10**6},
    "top_p": {"temperature": 1.0, "top_p": 0.7},
    "top_p tiny": {"temperature": 1.0, "top_p": 1e-6},
    "top_p near 1": {"temperature": 4.0, "top_p": 0.999},
    "min_p": {"temperature": 1.0, "min_p": 0.05},
    "min_p 1": {"temperature": 2.0, "min_p": 1.0},
    "typical_p": {"temperature": 1.0, "typical_p": 0.5},
    "typical_p tiny": {"temperature": 1.0, "typical_p": 1e-6},
    "every filter": {
        "temperature": 1.3,
        "top_k": 60,
        "top_p": 0.95,
        "min_p": 0.01,
        "typical_p": 0.9,
    },
    "repetition": {"temperature": 1.0, "repetition_penalty": 1.8},
    "repetition, greedy": {"repetition_penalty": 4.0},
    "frequency": {"temperature": 1.0, "frequency_penalty": 1.5},
    "presence": {"temperature": 1.0, "presence_penalty": 2.0},
    "short window": {"temperature": 1.0, "presence_penalty": 50.0, "penalty_window": 2},
    "no window": {"temperature": 1.0, "presence_penalty": 50.0, "penalty_window": 0},
    "bias": {"temperature": 1.0, "logit_bias": {3: 6.0, 250: 5.5, 9: -np.inf}},
    "all of it": {
        "temperature": 0.9,
        "top_k": 50,
        "top_p": 0.9,
        "min_p": 0.02,
        "typical_p": 0.95,
        "repetition_penalty": 1.2,
        "frequency_penalty": 0.3,
        "presence_penalty": 0.2,
        "logit_bias": {1: 2.0, 9: -3.0},
    },
}


@pytest.mark.parametrize("stage", STAGES)
def test_stage(stage: str) -> None:
    options = STAGES[stage]
    chosen = set()
    for seed in range(40):
        logits = logits_of(seed)
        want = sampling.choose(logits, HISTORY, seed=seed, **options)
        assert choose(logits, HISTORY, seed=seed, **options) == want
        chosen.add(want)
    assert len(chosen) > 10  # 40 different rows of logits


def test_penalties_and_bias_change_the_choice() -> None:
    logits = logits_of(1)
    best = int(logits.argmax())
    assert choose(logits, [best] * 3) == best
    for penalty in ({"repetition_penalty": 100.0}, {"frequency_penalty": 10.0}):
        assert choose(logits, [best] * 3, **penalty) != best
    assert choose(logits, [], logit_bias={best: -np.inf}) != best
    assert choose(logits, [], logit_bias={17: 1e6}) == 17


@pytest.mark.parametrize("filters", [{"top_k": 7}, {"top_p": 0.9}, {"min_p": 0.02}])
def test_filtered_tokens_never_come(filters: dict[str, Any]) -> None:
    logits = logits_of(3)
    kept = set(sampling.keep(logits, **filters))
    assert 1 < len(kept) < 100
    drawn = {choose(logits, [], temperature=1.0, seed=s, **filters) for s in range(1500)}
    assert drawn <= kept
    assert len(drawn) > len(kept) // 2


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.15, 0.07, 0.03], np.float32))
    count = 8000
    tokens = [choose(logits, [0] * 11, temperature=1.0, seed=s) for s in range(count)]
    found = np.bincount(tokens, minlength=5) / count
    # Five standard deviations of a binomial share.
    bound = 5 * np.sqrt(np.exp(logits) * (1 - np.exp(logits)) / count)
    assert np.all(np.abs(found - np.exp(logits)) < bound)


def test_positions_draw_their_own_noise() -> None:
    logits = np.zeros(50, np.float32)
    tokens = [choose(logits, [0] * length, temperature=1.0, seed=7) for length in range(60)]
    assert len(set(tokens)) > 20
    assert tokens == [choose(logits, [0] * n, temperature=1.0, seed=7) for n in range(60)]
    assert tokens != [choose(logits, [0] * n, temperature=1.0, seed=2**63 + 7) for n in range(60)]


def test_ties_go_to_the_lowest_id() -> None:
    logits = np.zeros(40, np.float32)
    logits[[8, 21, 33]] = 2.0
    assert choose(logits, []) == 8
    assert choose(logits, [], temperature=1.0, top_k=1) == 8
    assert choose(logits, [], temperature=1.0, top_p=1e-9) == 8
    assert {choose(logits, [], temperature=1.0, top_k=2, seed=s) for s in range(50)} == {8, 21}


def test_log_probabilities_are_of_the_raw_logits() -> None:
    logits = logits_of(4)
    expected = sampling.log_softmax(logits)
    options = {"temperature": 2.0, "seed": 1, "logprobs": 20, "logit_bias": [(2, 50.0)]}
    token, logprob, top = _quantloom.sample(logits, HISTORY, options)
    assert token == 2
    assert abs(logprob - expected[2]) < 1e-5
    order = np.lexsort((np.arange(VOCABULARY), -expected))[:20]
    assert [t for t, _ in top] == order.tolist()
    assert np.allclose([p for _, p in top], expected[order], atol=1e-5)
    assert _quantloom.sample(logits, [], {"logprobs": 0})[2] == []
    assert _quantloom.sample(logits, [], {})[1] is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite(bad: float) -> None:
    logits = logits_of(5)
    logits[17] = bad
    with pytest.raises(NumericsError):
        choose(logits, [])
    with pytest.raises(NumericsError):
        choose(logits, [], temperature=1.0, top_k=3)


def test_a_bias_that_leaves_nothing() -> None:
    with pytest.raises(NumericsError):
        choose(np.zeros(4, np.float32), [], logit_bias=dict.fromkeys(range(4), -np.inf))


def test_philox_known_answers() -> None:
    """From the authors' kat_vectors."""
    ones = 0xFFFFFFFF
    assert sampling.philox(0, (0, 0, 0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert sampling.philox(2**64 - 1, (ones, ones, ones, ones)) == (
        0x408F276D,
        0x41C83B0E,
        0xA20BC7C6,
        0x6D5451FD,
    )


def beside(share: float) -> list[float]:
    """A share and the two float32 beside it; 1, which filters nothing, alone."""
    if share == 1:
        return [share]
    return [float(np.nextafter(np.float32(share), np.float32(to))) for to in (0, share, 1)]


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    size=st.integers(1, 80),
    temperature=st.floats(0.0625, 10, width=32),
    top_k=st.integers(0, 90),
    top_p=st.sampled_from([1.0, 0.99, 0.6, 0.1]),
    min_p=st.sampled_from([0.0, 0.01, 0.3]),
    typical_p=st.sampled_from([1.0, 0.8, 0.2]),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_combination(data: st.DataObject, size: int, **options: Any) -> None:
    # Few distinct values, so that ties are everywhere.
    values = data.draw(st.lists(st.integers(-4, 4), min_size=size, max_size=size))
    history = data.draw(st.lists(st.integers(0, size - 1), max_size=12))
    penalty = data.draw(st.sampled_from([1.0, 1.5]))
    logits = np.array(values, np.float32)
    options["repetition_penalty"] = penalty
    # A run may end at one of several equal tokens where sums in another order round another way.
    allowed = {
        sampling.choose(logits, history, **options | {"top_p": top_p, "typical_p": typical_p})
        for top_p in beside(options["top_p"])
        for typical_p in beside(options["typical_p"])
    }
    assert choose(logits, history, **options) in allowed


OUTSIDE: list[tuple[str, Any]] = [
    ("temperature", -0.1),
    ("temperature", 1e-9),
    ("temperature", 1e9),
    ("temperature", float("nan")),
    ("temperature", float("inf")),
    ("top_k", -1),
    ("top_k", 2**31),
    ("top_p", 0.0),
    ("top_p", 1.5),
    ("top_p", float("nan")),
    ("min_p", -0.5),
    ("min_p", 1.01),
    ("typical_p", 0.0),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", float("inf")),
    ("frequency_penalty", 1e9),
    ("presence_penalty", float("nan")),
    ("penalty_window", -1),
    ("logprobs", 21),
    ("logprobs", -2),
    ("logit_bias", [(VOCABULARY, 1.0)]),
    ("logit_bias", [(-1, 1.0)]),
    ("logit_bias", [(0, float("nan"))]),
    ("logit_bias", [(0, float("inf"))]),
    ("logit_bias", [(0, 1.0), (0, 2.0)]),
]


@pytest.mark.parametrize(("name", "value"), OUTSIDE)
def test_options_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=name):
        _quantloom.sample(logits_of(0), [], {name: value})
