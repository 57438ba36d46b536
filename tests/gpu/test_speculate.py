"""Speculation on the GPU: the tokens of greedy decoding, from passes of several tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quantloom
from generate.test_speculate import PROMPTS, SHARED
from synthetic_model import VOCABULARY, Synthetic


@pytest.mark.parametrize("name", SHARED)
def test_real_models_give_the_same_tokens(name: str, shared_data: Path) -> None:
    path = shared_data / "models" / f"stories260K-{name}.gguf"
    drafted = accepted = 0
    with quantloom.load(path, device="cuda") as model:
        for text in PROMPTS:
            prompt = model.tokenize(text)
            count = model.context_length - len(prompt)
            plain = model.generate(prompt, max_new_tokens=count, ignore_eos=True)
            quick = model.generate(prompt, max_new_tokens=count, ignore_eos=True, speculate="ngram")
            assert quick.tokens == plain.tokens
            drafted += quick.timings.drafted_tokens
            accepted += quick.timings.accepted_tokens
    assert 0 < accepted < drafted


@pytest.mark.parametrize("format", ["Q8_0", "Q4_K", "F32"])
def test_random_models_give_the_same_tokens(format: str, tmp_path: Path) -> None:
    recipe = Synthetic(
        layers=3, embedding=256, heads=8, head_size=64, feed_forward=512, context=1024,
        format=format,
    )  # fmt: skip
    random = np.random.default_rng(3)
    with quantloom.load(recipe.write(tmp_path), device="cuda") as model:
        for _ in range(6):
            prompt = random.integers(0, VOCABULARY, 12).tolist() * 3
            plain = model.generate(prompt, max_new_tokens=400)
            quick = model.generate(prompt, max_new_tokens=400, speculate="ngram")
            assert quick.tokens == plain.tokens


def test_logits_of_the_two_kinds_of_pass_differ_by_less_than_a_choice_must(
    shared_data: Path,
) -> None:
    """What a choice in a pass of several tokens rests on: its margin of 0.05."""
    for name in SHARED:
        with quantloom.load(
            shared_data / "models" / f"stories260K-{name}.gguf", device="cuda"
        ) as model:
            tokens = model.generate("Once upon a time", max_new_tokens=300, ignore_eos=True).tokens
            found = []
            for chunk in (1, 8):
                with model.session(prefill_chunk=chunk) as session:
                    found.append(session.logits(tokens))
        apart = np.abs(found[0] - found[1]).max()
        assert apart <= 0.025, (name, apart)
        print(name, apart)
