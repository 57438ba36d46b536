"""Speculation by prompt lookup gives the tokens of greedy decoding, and refuses what it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantloom
from quantloom import InvalidArgument
from synthetic_model import VOCABULARY, Synthetic

SHARED = ["f16", "q8_0", "q4_0", "pad256-q4_k_m", "pad256-q6_k", "pad256-iq3_s", "pad256-tq2_0"]
PROMPTS = [
    "Once upon a time",
    "One day, Lily went to the park. Lily went to the park. Lily went to",
    "The cat sat. The dog sat. The cat sat. The dog sat. The cat",
]


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[quantloom.Model]:
    recipe = Synthetic(context=512, embedding=256, feed_forward=512, format="Q8_0", qk_norm=True,
                       architecture="qwen3")  # fmt: skip
    path = recipe.write(tmp_path_factory.mktemp("speculate"))
    with quantloom.load(path, device="cpu") as model:
        yield model


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("name", SHARED)
def test_real_models_give_the_same_tokens(name: str, precision: str, shared_data: Path) -> None:
    path = shared_data / "models" / f"stories260K-{name}.gguf"
    drafted = accepted = 0
    with quantloom.load(path, device="cpu", precision=precision) as model:
        for text in PROMPTS:
            prompt = model.tokenize(text)
            count = model.context_length - len(prompt)
            plain = model.generate(prompt, max_new_tokens=count, ignore_eos=True)
            quick = model.generate(prompt, max_new_tokens=count, ignore_eos=True, speculate="ngram")
            assert quick.tokens == plain.tokens
            assert (quick.text, quick.finish_reason) == (plain.text, plain.finish_reason)
            drafted += quick.timings.drafted_tokens
            accepted += quick.timings.accepted_tokens
            assert plain.timings.drafted_tokens == 0
    assert 0 < accepted < drafted  # right and wrong drafts both occurred


@pytest.mark.parametrize("seed", range(8))
def test_random_models_give_the_same_tokens(random_model: quantloom.Model, seed: int) -> None:
    random = np.random.default_rng(seed)
    prompt = random.integers(0, VOCABULARY, 12).tolist() * 3
    for count in (1, 2, 9, 200):
        plain = random_model.generate(prompt, max_new_tokens=count)
        quick = random_model.generate(prompt, max_new_tokens=count, speculate="ngram")
        assert quick.tokens == plain.tokens
        assert quick.timings.new_tokens == plain.timings.new_tokens == count


def test_up_to_the_last_place_of_the_context(random_model: quantloom.Model) -> None:
    prompt = [5, 6, 7] * 160
    plain = random_model.generate(prompt, max_new_tokens=1000)
    quick = random_model.generate(prompt, max_new_tokens=1000, speculate="ngram")
    assert len(plain.tokens) == random_model.context_length - len(prompt) + 1
    assert quick.tokens == plain.tokens
    assert quick.finish_reason == "length"


def test_stops_and_what_the_cache_holds(random_model: quantloom.Model) -> None:
    prompt = [9, 8, 7, 6] * 10
    plain = random_model.generate(prompt, max_new_tokens=120).tokens
    for at in (3, 40, 77):
        stop = plain[at]
        wanted = plain[: plain.index(stop)]
        with random_model.session() as session:
            result = session.generate(
                prompt, max_new_tokens=120, stop_tokens=[stop], speculate="ngram"
            )
            assert (result.tokens, result.finish_reason) == (wanted, "stop")
            assert session.tokens == prompt + wanted
            # The next prompt of the session goes on from there, rejected drafts forgotten.
            longer = prompt + plain[: at + 1]
            again = session.generate(longer, max_new_tokens=30, speculate="ngram")
            assert again.tokens == plain[at + 1 : at + 31]


def test_a_stream_that_ends_early(random_model: quantloom.Model) -> None:
    prompt = [1, 2, 3] * 8
    plain = random_model.generate(prompt, max_new_tokens=60).tokens
    with random_model.session() as session:
        with session.stream(prompt, max_new_tokens=60, speculate="ngram") as stream:
            taken = [next(stream).token for _ in range(20)]
        assert taken == plain[:20]
        assert session.tokens == prompt + plain[:19]
        assert session.generate(prompt, max_new_tokens=60).tokens == plain


def test_passes_of_one_token_cannot_draft(random_model: quantloom.Model) -> None:
    prompt = [1, 2, 3] * 8
    with random_model.session(prefill_chunk=1) as session:
        result = session.generate(prompt, max_new_tokens=30, speculate="ngram")
    assert result.timings.drafted_tokens == 0
    assert len(result.tokens) == 30


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"temperature": 0.5}, "temperature"),
        ({"repetition_penalty": 1.1}, "repetition_penalty"),
        ({"frequency_penalty": 0.1}, "frequency_penalty"),
        ({"presence_penalty": 0.1}, "presence_penalty"),
        ({"logit_bias": {3: 1.0}}, "logit_bias"),
        ({"logprobs": 0}, "logprobs"),
    ],
)
def test_what_it_does_not_go_with(
    random_model: quantloom.Model, options: dict[str, Any], names: str
) -> None:
    with pytest.raises(InvalidArgument, match=f"it does not go with {names}") as caught:
        random_model.generate([1, 2, 3], speculate="ngram", **options)
    assert caught.value.subject == "speculate"


@pytest.mark.parametrize("value", ["draft", True, 3])
def test_other_kinds_are_refused(random_model: quantloom.Model, value: Any) -> None:
    with pytest.raises(InvalidArgument, match="there are 'ngram' and None"):
        random_model.generate([1, 2, 3], speculate=value)


def test_text_that_repeats_takes_fewer_passes(random_model: quantloom.Model) -> None:
    """A random model falls into a cycle, which is text that repeats itself."""
    result = random_model.generate([4, 5] * 10, max_new_tokens=300, speculate="ngram")
    timings = result.timings
    passes = timings.new_tokens - timings.accepted_tokens
    assert passes <= timings.new_tokens / 3
