"""Ctrl-C and other signals while a generation runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quantloom


def interrupt_soon(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds)


@pytest.fixture
def alarm_is_interrupt() -> Iterator[None]:
    """SIGALRM raises KeyboardInterrupt, as Ctrl-C's SIGINT does, without ending pytest."""

    def handler(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class InterruptedBegin:
    """A core of a session: Ctrl-C comes after its begin() and before anyone has the result."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def begin(self, *arguments: Any) -> None:
        self._core.begin(*arguments)
        raise KeyboardInterrupt


@pytest.mark.parametrize("stop", ["none", "found", "held back for"])
def test_ctrl_c_at_the_end_of_a_generation(stop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was to be done then, the next call does."""
    options: dict[str, Any] = {"temperature": 0, "max_new_tokens": 30}
    with quantloom.load(device="cpu") as model, model.session() as session:
        text = session.generate("Once upon a time", **options).text
        options["stop"] = {"none": [], "found": ["."], "held back for": [f"{text[-2:]}\0"]}[stop]
        expected = session.generate("Once upon a time", **options)
        assert (expected.finish_reason == "stop") == (stop == "found")
        stream = session.stream("Once upon a time", **options)

        def interrupted(*_: object) -> None:
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr("quantloom.stream.Timings", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.run()
        result = stream.run()
        assert (result.text, result.tokens) == (expected.text, expected.tokens)
        assert result.finish_reason == expected.finish_reason
        assert result.timings.new_tokens == len(expected.tokens)


def test_a_signal_handler_closes_a_stream_with_its_own_session(
    model: quantloom.Model, alarm_is_interrupt: None
) -> None:
    stream = model.stream([1, 2, 3], max_new_tokens=2000, ignore_eos=True)
    signal.signal(signal.SIGALRM, lambda *_: stream.close())
    interrupt_soon(0.05)
    result = stream.run()
    assert stream._session.closed
    assert len(result.tokens) == result.timings.new_tokens < 2000


def test_ctrl_c_when_a_generation_has_just_begun(
    model: quantloom.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with model.session() as session:
        with monkeypatch.context() as patch:
            patch.setattr(session, "_core", InterruptedBegin(session._core))
            with pytest.raises(KeyboardInterrupt) as kept:  # as a notebook keeps its last error
                session.generate([1, 2, 3], max_new_tokens=5)
        assert len(session.generate([5, 6], max_new_tokens=5).tokens) == 5
        del kept


@pytest.mark.parametrize("prompt_tokens", [3, 1500])
def test_a_signal_handler_closes_the_stream_that_it_interrupts(
    prompt_tokens: int, model: quantloom.Model
) -> None:
    prompt = [i % 90 for i in range(prompt_tokens)]
    with model.session() as session:
        stream = session.stream(prompt, max_new_tokens=2000, ignore_eos=True)
        before = signal.signal(signal.SIGALRM, lambda number, frame: stream.close())
        try:
            interrupt_soon(0.05)
            result = stream.run()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert result.finish_reason == "cancelled"
        assert len(session.generate([5, 6], max_new_tokens=5).tokens) == 5


@pytest.mark.parametrize("prompt_tokens", [3, 1500])
def test_ctrl_c_leaves_the_session_usable(
    prompt_tokens: int, model: quantloom.Model, alarm_is_interrupt: None
) -> None:
    prompt = [i % 90 for i in range(prompt_tokens)]
    with model.session() as session:
        with pytest.raises(KeyboardInterrupt):
            interrupt_soon(0.1)
            while True:  # the machine may be quicker than the alarm
                session.reset()
                session.generate(prompt, max_new_tokens=500, ignore_eos=True)
        again = session.generate([5, 6], max_new_tokens=5)
        assert again.tokens == model.generate([5, 6], max_new_tokens=5).tokens
        # What an interrupted prompt left in the cache is whole and reused.
        held = session.tokens
        assert held == [5, 6, *again.tokens[:-1]]


def test_ctrl_c_stops_in_the_middle_of_a_prompt(
    model: quantloom.Model, alarm_is_interrupt: None
) -> None:
    prompt = [i % 90 for i in range(1500)]
    with model.session(prefill_chunk=16) as session:
        whole = session.generate(prompt, max_new_tokens=1).timings.prefill_seconds
        session.reset()
        with pytest.raises(KeyboardInterrupt):
            interrupt_soon(whole / 4)
            session.generate(prompt, max_new_tokens=1)
        assert 0 < len(session.tokens) < len(prompt)


def test_ctrl_c_in_logits(model: quantloom.Model, alarm_is_interrupt: None) -> None:
    with model.session() as session:
        with pytest.raises(KeyboardInterrupt):
            interrupt_soon(0.1)
            while True:
                session.logits([i % 90 for i in range(1500)])
        assert len(session.generate([5, 6], max_new_tokens=5).tokens) == 5


def test_ctrl_c_during_a_load(path: Path, alarm_is_interrupt: None) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt_soon(0.02)
        while True:
            quantloom.load(path, device="cpu").close()


def test_ctrl_c_in_a_stream_ends_it(model: quantloom.Model, alarm_is_interrupt: None) -> None:
    with model.session() as session:
        stream = session.stream([1, 2, 3], max_new_tokens=2000, ignore_eos=True)
        with pytest.raises(KeyboardInterrupt):
            interrupt_soon(0.05)
            for _ in stream:
                pass
            pytest.fail("2,000 tokens in 50 ms")
        assert stream.result.finish_reason == "cancelled"
        # The alarm may have fallen in Python code between two tokens: then the stream is open yet.
        stream.close()
        assert len(session.generate([5, 6], max_new_tokens=5).tokens) == 5
