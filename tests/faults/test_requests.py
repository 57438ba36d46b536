"""Whatever is asked of a model: a result in its stated form or a typed error; the model goes on."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_model import REMOVED, chat_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quantloom
import quantloom.cuda
from quantloom import InvalidArgument, NumericsError, QuantloomError, TokenizerError
from synthetic_model import VOCABULARY, Synthetic


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[quantloom.Model]:
    path = Synthetic(layers=1, context=24).write(tmp_path_factory.mktemp("requests"))
    with quantloom.load(path, device="cpu") as model:
        yield model


@pytest.fixture(scope="module", params=["bpe", "spm"])
def talking(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[quantloom.Model]:
    path = chat_model(tmp_path_factory.mktemp(request.param), request.param, context=512)
    with quantloom.load(path, device="cpu") as model:
        yield model


EDGES = [0, 1, -1, 2, 23, 24, 25, VOCABULARY, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64]
EDGES += [-(2**31), -(2**63), 10**30, -(10**30), 2**100_000]
integers = st.sampled_from(EDGES) | st.integers()
numbers = integers | st.floats() | st.sampled_from([0.5, 1.0, 1e-320, 1e308])
others = st.none() | st.text(max_size=3) | st.booleans() | st.binary(max_size=2) | st.just([])
values = numbers | others
LENGTHS = ["max_new_tokens", "top_k", "penalty_window", "seed", "logprobs"]
WEIGHTS = ["temperature", "top_p", "min_p", "typical_p", "repetition_penalty"]
WEIGHTS += ["frequency_penalty", "presence_penalty"]
options = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(LENGTHS + WEIGHTS, values) | {"ignore_eos": st.booleans()}
)
sane = st.fixed_dictionaries(
    {},
    optional={
        "max_new_tokens": st.integers(0, 30),
        "temperature": st.floats(0.001, 100),
        "top_k": st.integers(0, 2**31 - 1),
        "top_p": st.floats(1e-6, 1),
        "seed": st.integers(0, 2**64 - 1),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(prompt=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=24), asked=options)
def test_any_options(plain: quantloom.Model, prompt: list[int], asked: dict[str, Any]) -> None:
    try:
        result = plain.generate(prompt, **asked)
    except InvalidArgument as error:
        assert error.subject is not None and error.subject.split("[")[0] in asked
        assert len(str(error)) < 500
        return
    limit = asked.get("max_new_tokens", 256)
    assert len(result.tokens) == min(limit, 24 - len(prompt) + 1)
    assert result.finish_reason == "length"
    assert all(0 <= token < VOCABULARY for token in result.tokens)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(prompt=st.lists(values, max_size=30) | values, asked=sane)
def test_any_prompt(plain: quantloom.Model, prompt: Any, asked: dict[str, Any]) -> None:
    try:
        result = plain.generate(prompt, **asked)
    except (QuantloomError, TypeError) as error:
        assert not isinstance(error, TypeError), repr(prompt)
        assert len(str(error)) < 500
        return
    assert all(type(token) is int and 0 <= token < VOCABULARY for token in prompt)
    assert 1 <= len(prompt) <= 24
    assert len(result.tokens) == min(asked.get("max_new_tokens", 256), 24 - len(prompt) + 1)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(length=values, threads=values)
def test_any_arguments_of_load(plain: quantloom.Model, length: Any, threads: Any) -> None:
    if isinstance(threads, int) and 64 < threads <= 1024:
        threads = 64  # that many threads exist, but start slowly
    before = plain.generate([1, 2], max_new_tokens=3).tokens
    try:
        model = quantloom.load(plain.path, device="cpu", context_length=length, threads=threads)
    except InvalidArgument as error:
        assert error.subject in ("context_length", "threads")
    else:
        assert model.context_length == (24 if length is None else length)
        model.close()
    assert plain.generate([1, 2], max_new_tokens=3).tokens == before


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(chunk=values)
def test_any_prefill_chunk(plain: quantloom.Model, chunk: Any) -> None:
    try:
        session = plain.session(prefill_chunk=chunk)
    except InvalidArgument as error:
        assert error.subject == "prefill_chunk"
        return
    with session:
        assert len(session.generate([1] * 20, max_new_tokens=2).tokens) == 2


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(st.characters(), max_size=200))
def test_any_text(talking: quantloom.Model, text: str) -> None:
    """Any characters, lone surrogates and NUL among them."""
    try:
        result = talking.generate(text, max_new_tokens=2, ignore_eos=True)
    except quantloom.TokenizerError as error:
        assert any(0xD800 <= ord(character) < 0xE000 for character in text), str(error)
        return
    except InvalidArgument as error:
        assert "no tokens" in str(error) and talking.tokenize(text) == []
        return
    assert len(result.tokens) == 2
    result.text.encode()


PROMPTS = ["\0", "a\0b\0", "\0" * 300, "\r\n\t \v\f", "\ufeff", "\U0010ffff", "e\u0301" * 50, " "]


@pytest.mark.parametrize("prompt", PROMPTS, ids=range(len(PROMPTS)))
def test_strange_texts(prompt: str, talking: quantloom.Model) -> None:
    assert len(talking.generate(prompt, max_new_tokens=2, ignore_eos=True).tokens) == 2
    assert len(talking.chat(prompt, max_new_tokens=2, ignore_eos=True).tokens) <= 2


def test_only_special_tokens(talking: quantloom.Model) -> None:
    tokenizer = talking.tokenizer
    assert tokenizer is not None
    special = [i for i in (tokenizer.bos_id, tokenizer.eos_id) if i is not None]
    for prompt in ([token] * 5 for token in special):
        result = talking.generate(prompt, max_new_tokens=3, ignore_eos=True)
        assert len(result.tokens) == 3
        assert talking.detokenize(prompt) == ""
    text = "<|im_start|><|im_end|><s></s>" * 3
    assert len(talking.generate(text, max_new_tokens=2, ignore_eos=True).tokens) == 2


def test_an_empty_prompt(talking: quantloom.Model) -> None:
    """Text without tokens is refused, unless the vocabulary puts a start token before it."""
    if talking.tokenize(""):
        assert len(talking.generate("", max_new_tokens=2, ignore_eos=True).tokens) == 2
    else:
        with pytest.raises(InvalidArgument, match="no tokens"):
            talking.generate("")
    with pytest.raises(InvalidArgument, match="no tokens"):
        talking.generate([])
    assert len(talking.chat("", max_new_tokens=1, ignore_eos=True).tokens) <= 1


@pytest.mark.parametrize("character", ["a", "\0", "\U0001f600"])
def test_a_megabyte_of_one_character(character: str, talking: quantloom.Model) -> None:
    with pytest.raises(quantloom.ContextFull) as caught:
        talking.generate(character * (1_000_000 // len(character.encode())))
    assert caught.value.limit == 512
    assert len(talking.generate("a", max_new_tokens=1, ignore_eos=True).tokens) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tensor", ["output_norm.weight", "blk.1.attn_norm.weight"])
def test_logits_that_are_no_numbers(value: float, tensor: str, device: str, tmp_path: Path) -> None:
    weights = np.ones(64, np.float32)
    weights[11] = value
    path = Synthetic(tensors={tensor: weights}).write(tmp_path)
    with pytest.raises(quantloom.GGUFError, match=tensor):
        quantloom.load(path, device=device)
    with quantloom.load(path, device=device, check_weights=False) as model, model.session() as s:
        for options in ({}, {"temperature": 1.0, "seed": 3}, {"logprobs": 3}):
            with pytest.raises(NumericsError, match="logits at position 2 are not finite"):
                s.generate([1, 2, 3], **options)  # type: ignore[arg-type]
            assert s.tokens == []
        with pytest.raises(NumericsError):
            list(s.stream([1]))


def resident() -> int:
    gc.collect()
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("this system does not tell a process its memory")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("end", ["close", "drop", "error", "exhaust", "cycle"])
def test_a_stream_gives_its_cache_back(end: str, device: str, tmp_path: Path) -> None:
    """Streams left half-way, each with a cache of 8 MiB of which 1 MiB is in use."""
    recipe = Synthetic(layers=1, context=8192, kv_heads=8, heads=8, head_size=32)
    with quantloom.load(recipe.write(tmp_path), device=device) as model:
        assert model.cache_bytes == 8 << 20
        held = 0 if device == "cpu" else quantloom.cuda.memory().in_use
        prompt = [i % 90 for i in range(1000)]
        grown = []
        for round_ in range(8):
            stream = model.stream(prompt, max_new_tokens=3, ignore_eos=True)
            session = weakref.ref(stream._session)
            next(stream)
            if end == "close":
                stream.close()
            elif end == "exhaust":
                assert len(list(stream)) == 2
            elif end == "error":
                with pytest.raises(RuntimeError, match="a callback's"):
                    with stream:
                        raise RuntimeError("a callback's")
            elif end == "cycle":
                stream.itself = stream  # type: ignore[attr-defined]
            del stream
            gc.collect()
            assert session() is None
            assert device == "cpu" or quantloom.cuda.memory().in_use == held
            if round_ >= 2:
                grown.append(resident())
        assert grown[-1] - grown[0] <= 2 << 20


def test_what_a_progress_callback_raises(plain: quantloom.Model) -> None:
    for error in (RuntimeError("no"), KeyboardInterrupt(), SystemExit(2), GeneratorExit()):

        def refuse(done: int, total: int, error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            quantloom.load(plain.path, device="cpu", progress=refuse)
    for wrong in (3, "text"):
        with pytest.raises(InvalidArgument, match="progress must be callable"):
            quantloom.load(plain.path, device="cpu", progress=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        quantloom.load(plain.path, device="cpu", progress=lambda: None)  # type: ignore[arg-type, misc]
    assert len(plain.generate([1], max_new_tokens=2).tokens) == 2


def test_a_file_that_names_no_pre_tokenizer(tmp_path: Path, plain: quantloom.Model) -> None:
    path = chat_model(tmp_path, changes={"tokenizer.ggml.pre": REMOVED})
    with pytest.raises(TokenizerError, match="pass pre=NAME"):
        quantloom.load(path, device="cpu")
    with quantloom.load(path, device="cpu", pre="gpt-2") as model:
        assert model.detokenize(model.tokenize("hello")) == "hello"
    with pytest.raises(InvalidArgument, match="pre is 'gpt-2', but the file has no tokenizer"):
        quantloom.load(plain.path, device="cpu", pre="gpt-2")


ODD_OPTIONS: list[dict[str, Any]] = [
    {"stop_tokens": 5},
    {"stop_tokens": [1.5]},
    {"stop_tokens": "ab"},
    {"stop": 5},
    {"stop": b"x"},
    {"stop": [""]},
    {"stop": "\ud800"},
    {"speculate": np.array([1, 2])},
    {"speculate": "tree"},
    {"logit_bias": {"a": 1}},
    {"logit_bias": {1: 10**400}},
    {"logit_bias": 7},
]


@pytest.mark.parametrize("options", ODD_OPTIONS, ids=str)
def test_options_of_another_form(options: dict[str, Any], talking: quantloom.Model) -> None:
    with pytest.raises(InvalidArgument) as caught:
        talking.generate("a", **options)
    assert caught.value.subject is not None
    assert caught.value.subject.split()[0] == next(iter(options))


def test_options_that_are_none(talking: quantloom.Model) -> None:
    nothing: dict[str, Any] = dict.fromkeys(["stop", "stop_tokens", "logit_bias", "seed"])
    result = talking.generate("a", max_new_tokens=2, ignore_eos=True, logprobs=None, **nothing)
    assert len(result.tokens) == 2


NAMES = ["\0", "a\0b.gguf", "\ud800.gguf", "", "a" * 5000, "a/" * 3000]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_that_no_file_has(name: str) -> None:
    for call in (quantloom.open, lambda path: quantloom.load(path, device="cpu")):
        with pytest.raises(quantloom.FileError) as caught:
            call(name)
        assert caught.value.subject is not None


def test_two_threads_at_the_end_of_one_stream(plain: quantloom.Model) -> None:
    """The one that comes too late finds the end, not a closed session."""
    expected = plain.generate([1, 2], max_new_tokens=3).tokens
    for _ in range(100):
        stream = plain.stream([1, 2], max_new_tokens=3)

        def take(stream: quantloom.Stream = stream) -> list[int | None]:
            taken: list[int | None] = []
            while True:
                try:
                    taken.append(next(stream).token)
                except quantloom.SessionBusy:
                    continue
                except StopIteration:
                    return taken

        with ThreadPoolExecutor(3) as pool:
            parts = list(pool.map(lambda work: work(), [take] * 3))
        assert sorted(str(t) for part in parts for t in part) == sorted(map(str, expected))
