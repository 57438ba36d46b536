"""batch_invariant=True: the same bits whatever the chunks of a prompt and the reused prefix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quantloom
from quantloom import _quantloom
from slow_emulated import slow_but
from synthetic_model import Synthetic

PROMPT = [i * 7 % 90 for i in range(200)]
CHUNKS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 129, 199, 200]
FEW_CHUNKS = [9, 64]
GREEDY: dict[str, Any] = {"max_new_tokens": 12, "ignore_eos": True, "logprobs": 20}
SAMPLED: dict[str, Any] = {**GREEDY, "temperature": 0.9, "seed": 8}
FORMATS = ["F32", "F16", "Q4_0", "Q8_0", "Q4_K", "Q6_K", "Q2_K", "BF16"]
HELD = [1, 8, 57, 64, 129, 199, 200]


def model_file(folder: Path, kind: str) -> Path:
    return Synthetic(
        format=kind, embedding=256, heads=4, head_size=64, feed_forward=512, context=512
    ).write(folder)


@pytest.fixture(scope="module", params=slow_but("Q4_K", FORMATS))
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_file(tmp_path_factory.mktemp("invariant"), request.param)


@pytest.fixture(params=["exact", "fast"])
def model(request: pytest.FixtureRequest, path: Path, device: str) -> Iterator[quantloom.Model]:
    if device != "cpu" and request.param == "fast":
        pytest.skip("the GPU runs the exact kernels for both")
    options = {"device": device, "precision": request.param, "batch_invariant": True}
    with quantloom.load(path, **options) as model:
        assert model.batch_invariant
        yield model


def said(result: quantloom.GenerationResult) -> tuple[list[int], list[Any]]:
    return result.tokens, list(result.logprobs or [])


@pytest.mark.parametrize("chunks", slow_but(FEW_CHUNKS, [FEW_CHUNKS, CHUNKS]), ids=["few", "all"])
def test_any_chunks_give_the_same_bits(chunks: list[int], model: quantloom.Model) -> None:
    expected = model.logits(PROMPT).tobytes()
    alone = said(model.generate(PROMPT, **GREEDY))
    for chunk in chunks:
        with model.session(prefill_chunk=chunk) as session:
            assert session.logits(PROMPT).tobytes() == expected, chunk
            session.reset()
            assert said(session.generate(PROMPT, **GREEDY)) == alone, chunk


@pytest.mark.parametrize("held", slow_but(129, HELD))
def test_any_prefix_that_is_reused_gives_the_same_bits(held: int, model: quantloom.Model) -> None:
    for options in (GREEDY, SAMPLED):
        expected = said(model.generate(PROMPT, **options))
        with model.session(prefill_chunk=50) as session:
            session.generate(PROMPT[:held], max_new_tokens=1)
            again = session.generate(PROMPT, **options)
            assert again.timings.reused_tokens == min(held, len(PROMPT) - 1)
            assert said(again) == expected


@pytest.mark.slow_emulated
def test_what_was_generated_is_computed_anew(model: quantloom.Model) -> None:
    """A conversation gives the bits that its whole text would give at once."""
    with model.session() as session:
        text = list(PROMPT)
        for turn in range(3):
            result = session.generate(text, **GREEDY)
            assert said(result) == said(model.generate(text, **GREEDY))
            assert result.timings.reused_tokens <= len(text) - (12 if turn else 0)
            text += [*result.tokens, turn]


def test_a_split_of_the_prompt_beside_other_sessions(model: quantloom.Model) -> None:
    expected = said(model.generate(PROMPT, **GREEDY))
    with model.session(prefill_chunk=33) as session, model.session() as other:
        stream = other.stream([5, 6, 7], max_new_tokens=200, ignore_eos=True)
        next(stream)
        assert said(session.generate(PROMPT, **GREEDY)) == expected
        stream.close()


@pytest.mark.slow_emulated
@pytest.mark.parametrize("cache_type", ["f32", "q8_0"])
def test_other_caches(cache_type: str, device: str, tmp_path: Path) -> None:
    path = model_file(tmp_path, "Q4_K")
    options: dict[str, Any] = {"cache_type": cache_type, "batch_invariant": True}
    with quantloom.load(path, device=device, **options) as model:
        expected = model.logits(PROMPT).tobytes()
        for chunk in (1, 7, 64, 129):
            with model.session(prefill_chunk=chunk) as session:
                assert session.logits(PROMPT).tobytes() == expected, chunk


@pytest.mark.slow_emulated
def test_a_long_history(device: str, tmp_path: Path) -> None:
    """Past the length from which a single token's history is shared between threads."""
    path = Synthetic(format="Q4_0", context=2600, keys={"attention.sliding_window": 1500}).write(
        tmp_path
    )
    prompt = [i * 11 % 90 for i in range(2500)]
    with quantloom.load(path, device=device, context_length=2600, batch_invariant=True) as model:
        expected = said(model.generate(prompt, **GREEDY))
        for held in (1030, 2499, 2500):
            with model.session() as session:
                session.generate(prompt[:held], max_new_tokens=3, ignore_eos=True)
                assert said(session.generate(prompt, **GREEDY)) == expected, held


@pytest.mark.parametrize("name", _quantloom.instruction_sets())
@pytest.mark.parametrize("kind", ["F32", "F16", "Q4_K", "Q8_0"])
def test_every_instruction_set(kind: str, name: str, tmp_path: Path) -> None:
    path = model_file(tmp_path, kind)
    before = _quantloom.instruction_set()
    _quantloom.set_instruction_set(name)
    try:
        bits = {}
        for mode in (True, False):
            with quantloom.load(path, device="cpu", batch_invariant=mode) as model:
                bits[mode] = set()
                for chunk in (1, 5, 16, 200):
                    with model.session(prefill_chunk=chunk) as session:
                        bits[mode].add(session.logits(PROMPT[:40]).tobytes())
    finally:
        _quantloom.set_instruction_set(before)
    assert len(bits[True]) == 1
    # Where the kernels for few tokens sum in another order, the mode is what makes the difference.
    if name != "plain" and kind in ("Q4_K", "Q8_0"):
        assert len(bits[False]) > 1


def test_speculation_is_refused(device: str, tmp_path: Path) -> None:
    path = model_file(tmp_path, "Q4_0")
    with quantloom.load(path, device=device, batch_invariant=True) as model:
        with pytest.raises(quantloom.InvalidArgument, match="batch_invariant rules out") as caught:
            model.generate([1, 2, 3], speculate="ngram")
        assert caught.value.subject == "speculate"
        assert len(model.generate([1, 2, 3], **GREEDY).tokens) == 12
