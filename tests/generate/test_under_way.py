"""What happens while a generation runs: threads, cancelling, closing, the interpreter lock."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import quantloom
from quantloom import SessionBusy, _quantloom


def test_sessions_in_threads_get_what_they_would_alone(model: quantloom.Model) -> None:
    prompts = [[i, i + 1, i + 2] for i in range(8)]
    alone = [model.generate(prompt, max_new_tokens=20).tokens for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda p: model.generate(p, max_new_tokens=20).tokens, prompts))
    assert together == alone


def test_two_threads_on_one_session(model: quantloom.Model) -> None:
    expected = model.generate([1, 2, 3], max_new_tokens=200).tokens
    with model.session() as session:
        refused = threading.Event()

        def intrude() -> None:
            for _ in range(200):
                try:
                    session.generate([9], max_new_tokens=1)
                except SessionBusy:
                    refused.set()
                except quantloom.Closed:
                    return

        stream = session.stream([1, 2, 3], max_new_tokens=200)
        thread = threading.Thread(target=intrude)
        thread.start()
        tokens = [piece.token for piece in stream]
        thread.join()
        assert refused.is_set()
        assert tokens == expected


def test_two_threads_on_one_stream(model: quantloom.Model) -> None:
    expected = model.generate([1, 2, 3], max_new_tokens=150).tokens
    stream = model.stream([1, 2, 3], max_new_tokens=150)
    taken: list[int | None] = []

    def take() -> None:
        while True:
            try:
                taken.append(next(stream).token)
            except SessionBusy:
                time.sleep(0)
            except StopIteration:
                return

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, taken)) == sorted(map(str, expected))


@pytest.mark.parametrize("prompt_tokens", [3, 1500])
def test_cancel_from_another_thread(prompt_tokens: int, model: quantloom.Model) -> None:
    prompt = [i % 90 for i in range(prompt_tokens)]
    with model.session() as session:
        done = threading.Event()

        def cancel() -> None:
            while not done.wait(0.1):  # the first may come before the generation has begun
                session.cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        result = session.generate(prompt, max_new_tokens=2000, ignore_eos=True)
        done.set()
        thread.join()
        assert result.finish_reason == "cancelled"
        assert len(result.tokens) < 2000
        again = session.generate([5, 6], max_new_tokens=5)
    assert again.tokens == model.generate([5, 6], max_new_tokens=5).tokens


@pytest.mark.parametrize("prompt_tokens", [3, 1500])
def test_close_a_stream_that_another_thread_takes(
    prompt_tokens: int, model: quantloom.Model
) -> None:
    expected = model.generate([5, 6], max_new_tokens=5).tokens
    prompt = [i % 90 for i in range(prompt_tokens)]
    with model.session() as session:
        stream = session.stream(prompt, max_new_tokens=500, ignore_eos=True)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(stream.run)
            time.sleep(0.02)
            stream.close()
            assert session.generate([5, 6], max_new_tokens=5).tokens == expected
            assert running.result().finish_reason == "cancelled"
        assert session.generate([5, 6], max_new_tokens=5).tokens == expected


@pytest.mark.parametrize("closed", [False, True])
def test_the_end_of_a_generation_is_told_by_its_own_timings(
    closed: bool, model: quantloom.Model
) -> None:
    """Also where another thread begins the next one before they are read, and closes this one."""
    with model.session() as session:
        stream = session.stream([1, 2, 3], max_new_tokens=5, ignore_eos=True)
        core = stream._core
        others: list[quantloom.Stream] = []

        class Raced:
            def next(self, *arguments: int) -> tuple[Any, ...]:
                step: tuple[Any, ...] = core.next(*arguments)
                if len(step) == 2:
                    others.append(session.stream([4, 5, 6, 7], max_new_tokens=9, ignore_eos=True))
                    next(others[0])
                    if closed:
                        stream.close()
                return step

            def __getattr__(self, name: str) -> Any:
                return getattr(core, name)

        stream._core = Raced()
        result = stream.run()
        assert result.finish_reason == "length"
        assert (result.timings.prompt_tokens, result.timings.new_tokens) == (3, 5)
        other = others[0].run()
        assert (other.timings.prompt_tokens, other.timings.new_tokens) == (4, 9)
        stream.close()
        assert stream.result == result


def test_timings_of_a_generation_that_failed(model: quantloom.Model) -> None:
    session = model.session()
    stream = session.stream([1, 2, 3], max_new_tokens=50, ignore_eos=True)
    taken = [next(stream) for _ in range(4)]
    session.close()
    with pytest.raises(quantloom.Closed):
        next(stream)
    assert len(stream.result.tokens) == stream.result.timings.new_tokens == len(taken)


def test_a_stream_that_has_ended_cancels_and_closes_no_other(model: quantloom.Model) -> None:
    with model.session() as session:
        ended = session.stream([1, 2, 3], max_new_tokens=1)
        ended.run()
        stream = session.stream([5, 6], max_new_tokens=5)
        next(stream)
        ended.cancel()
        ended.close()
        result = stream.run()
        assert (result.finish_reason, len(result.tokens)) == ("length", 5)
        stream = session.stream([5, 6], max_new_tokens=5)
        next(stream)
        stream.cancel()
        assert stream.run().finish_reason == "cancelled"


def test_close_ends_logits_in_another_thread(model: quantloom.Model) -> None:
    """Those under way, which it would wait for otherwise."""

    def ended() -> bool:
        session = model.session()
        seen = threading.Event()

        def close_when_busy() -> None:
            while True:
                try:
                    session.reset()
                except SessionBusy:
                    seen.set()
                    return session.close()

        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(close_when_busy)
            try:
                while not seen.is_set():
                    session.logits([i % 90 for i in range(2000)])
            except quantloom.Closed:
                return True
            closing.result()
            return False

    # Seen at their very end, they may be there before the session is closed.
    assert any(ended() for _ in range(5))


def test_the_interpreter_goes_on_meanwhile(model: quantloom.Model) -> None:
    ticks = 0
    done = threading.Event()

    def count() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    start = time.monotonic()
    model.logits([i % 90 for i in range(1500)])
    elapsed = time.monotonic() - start
    done.set()
    thread.join()
    assert ticks > 20 * elapsed


def test_a_prompt_in_a_thread_does_not_wait_for_the_interpreter_lock(
    model: quantloom.Model,
) -> None:
    prompt = [i % 90 for i in range(1408)]
    layers = 2 * model.block_count  # slow enough that the busy thread has the lock back each time
    wait = 0.15  # of who asks for it
    done = False

    def prefill_seconds() -> float:
        with model.session(prefill_chunk=704) as session:
            return session.generate(prompt, max_new_tokens=1).timings.prefill_seconds

    def keep_busy() -> None:
        while not done:
            pass

    alone = prefill_seconds()
    before = sys.getswitchinterval()
    thread = threading.Thread(target=keep_busy)
    sys.setswitchinterval(wait)
    thread.start()
    try:
        with ThreadPoolExecutor(1) as pool:
            # Other programs may take the cores in one of them.
            beside = min(pool.submit(prefill_seconds).result() for _ in range(2))
    finally:
        done = True
        thread.join()
        sys.setswitchinterval(before)
    assert beside <= 2 * alone + layers * wait / 2


def test_closing_the_model_stops_other_threads(path: Path) -> None:
    model = quantloom.load(path, device="cpu")
    session = model.session()
    errors: list[BaseException] = []
    results: list[quantloom.GenerationResult] = []

    def run() -> None:
        try:
            results.append(session.generate([1, 2, 3], max_new_tokens=2000, ignore_eos=True))
        except quantloom.Closed as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.1)
    model.close()
    thread.join(10)
    assert not thread.is_alive()
    assert errors or results[0].finish_reason == "cancelled"


def test_a_session_that_is_made_while_its_model_closes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = quantloom.load(path, device="cpu")
    made: list[Any] = []
    make = _quantloom.Session

    def make_and_close(*arguments: Any) -> Any:
        made.append(make(*arguments))
        model.close()
        return made[0]

    monkeypatch.setattr(_quantloom, "Session", make_and_close)
    with pytest.raises(quantloom.Closed, match="is closed"):
        model.session()
    assert made[0].closed


def test_exit_in_the_middle_of_a_stream(path: Path) -> None:
    code = (
        "import sys, quantloom\n"
        "model = quantloom.load(sys.argv[1], device='cpu')\n"
        "stream = model.stream([1, 2, 3])\n"
        "next(stream)\n"
        "sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (7, "")


def test_import_is_quick() -> None:
    code = (
        "import time; start = time.process_time(); import quantloom; "
        "print(time.process_time() - start)"
    )
    seconds = min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(3)
    )
    assert seconds <= 0.2


def test_a_generation_imports_nothing(path: Path) -> None:
    """A fork() while another thread imports would leave the module's lock held in the child."""
    code = (
        "import sys, numpy, quantloom\n"
        "model = quantloom.load(sys.argv[1], device='cpu')\n"
        "before = set(sys.modules)\n"
        "model.generate([1, 2, 3], max_new_tokens=2, stop_tokens=[0], logit_bias={5: 1.0})\n"
        "model.logits(numpy.arange(3))\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
