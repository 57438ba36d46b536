"""Ctrl-C, SIGTERM and the end of the interpreter, in child processes and with real signals."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from children import run

from synthetic_model import Synthetic

# What the child does when the signal comes, in an endless loop: no machine is too quick for it.
PLACES = {
    "load": """
def work():
    while True:
        quantloom.load(path, device=DEVICE).close()
""",
    "prefill": """
def work():
    while True:
        session.reset()
        session.generate(LONG, max_new_tokens=1)
""",
    "decode": """
def work():
    while True:
        session.generate([1, 2, 3], max_new_tokens=1500, ignore_eos=True)
""",
    "stream": """
def work():
    while True:
        with session.stream([1, 2, 3], max_new_tokens=1500, ignore_eos=True) as stream:
            for piece in stream:
                pass
""",
    "logits": """
def work():
    while True:
        session.logits(LONG)
""",
}

SETUP = """
DEVICE = sys.argv[2]
LONG = [i % 90 for i in range(1500)]
model = quantloom.load(path, device=DEVICE)
expected = model.generate([5, 6], max_new_tokens=8).tokens
session = model.session()
"""

AFTER_CTRL_C = """
try:
    ready()
    work()
except KeyboardInterrupt:
    pass
assert session.generate([5, 6], max_new_tokens=8).tokens == expected
again = session.generate([5, 6, *expected], max_new_tokens=1)
assert again.timings.reused_tokens >= 8, again.timings
print("usable", flush=True)
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token takes about a millisecond, a prompt of 1,500 tokens some tenths of a second."""
    recipe = Synthetic(
        layers=4, embedding=256, heads=4, head_size=64, feed_forward=768, context=2048
    )
    return recipe.write(tmp_path_factory.mktemp("signals"))


# On a busy machine the emulator takes seconds for a prompt, which a signal waits for.
@pytest.mark.slow_emulated
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("after", [0.02, 0.11])
def test_ctrl_c(place: str, after: float, path: Path, device: str) -> None:
    code = SETUP + PLACES[place] + AFTER_CTRL_C
    ended = run(code, path, device, send=signal.SIGINT, after=after)
    assert (ended.code, ended.out, ended.err) == (0, "usable\n", "")
    assert ended.seconds <= 5  # with the second generation and the end of the interpreter


@pytest.mark.parametrize("place", PLACES)
def test_sigterm_ends_the_process(place: str, path: Path, device: str) -> None:
    code = SETUP + PLACES[place] + "ready()\nwork()\n"
    ended = run(code, path, device, send=signal.SIGTERM)
    assert (ended.code, ended.err) == (-signal.SIGTERM, "")
    assert ended.seconds <= 2


def test_a_handler_of_sigterm_stops_a_load(path: Path, device: str) -> None:
    handler = """
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))
ready()
work()
"""
    # After a first load: NumPy, imported with it, turns what a handler raises into an ImportError.
    ended = run(SETUP + PLACES["load"] + handler, path, device, send=signal.SIGTERM)
    assert (ended.code, ended.err) == (3, "")


EXITS = {
    "stream open": """
stream = model.stream([1, 2, 3], max_new_tokens=1500, ignore_eos=True)
next(stream)
""",
    "stream in a cycle": """
stream = model.stream([1, 2, 3], max_new_tokens=1500, ignore_eos=True)
next(stream)
cycle = [stream]
cycle.append(cycle)
del stream
""",
    "daemon thread generates": """
def endless():
    while True:
        model.generate(LONG, max_new_tokens=1500, ignore_eos=True)
threading.Thread(target=endless, daemon=True).start()
time.sleep(0.2)
""",
    "daemon thread loads": """
def endless():
    try:
        while True:
            quantloom.load(path, device=DEVICE)
    except RuntimeError as error:  # Python starts no more threads
        assert "shutdown" in str(error), error
threading.Thread(target=endless, daemon=True).start()
time.sleep(0.05)
""",
}


@pytest.mark.parametrize("place", EXITS)
def test_the_interpreter_ends_in_the_middle(place: str, path: Path, device: str) -> None:
    ended = run(SETUP + EXITS[place], path, device)
    assert (ended.code, ended.err) == (0, "")
    assert ended.seconds <= 20


def test_a_thread_goes_on_when_the_interpreter_has_ended(tmp_path: Path, device: str) -> None:
    # One layer, so that the thread asks for nothing of Python's for some tenths of a second. The C
    # library calls what is registered there behind Python's end: sleep(3), the exit status.
    recipe = Synthetic(
        layers=1, embedding=1024, heads=8, head_size=128, feed_forward=8192, context=2048
    )
    slow_end = """
import ctypes
libc = ctypes.CDLL(None)
libc.on_exit(libc.sleep, None)
sys.exit(3)
"""
    code = SETUP + EXITS["daemon thread generates"] + slow_end
    ended = run(code, recipe.write(tmp_path), device)
    assert (ended.code, ended.err) == (3, "")
