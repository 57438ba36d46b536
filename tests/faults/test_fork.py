"""fork() on the CPU: before the first use, after it, and in the middle of other threads' work."""

from __future__ import annotations

from pathlib import Path

import pytest
from children import FORKED, run

from synthetic_model import Synthetic

SETUP = (
    FORKED
    + """
LONG = [i % 90 for i in range(1500)]

def tokens_of(prompt):
    with quantloom.load(path, device="cpu", threads=3) as model:
        return model.generate(prompt, max_new_tokens=20).tokens
"""
)

CASES = {
    "before the first use": """
first = child_of(lambda: tokens_of([1, 2]))
assert first == tokens_of([1, 2]), first
""",
    "after use, a model of its own": """
expected = tokens_of([1, 2])
for _ in range(3):
    assert child_of(lambda: tokens_of([1, 2])) == expected
""",
    "after use, the parent's model": """
model = quantloom.load(path, device="cpu", threads=3)
expected = model.generate(LONG, max_new_tokens=5).tokens
session = model.session()
session.generate([1, 2, 3], max_new_tokens=5)
beside = session.generate([1, 2, 3, 4], max_new_tokens=5).tokens
session.generate([1, 2, 3], max_new_tokens=5)
def in_child():
    assert session.generate([1, 2, 3, 4], max_new_tokens=5).tokens == beside
    return model.generate(LONG, max_new_tokens=5).tokens
assert child_of(in_child) == expected
assert model.generate(LONG, max_new_tokens=5).tokens == expected
model.close()
""",
    "while a stream is open": """
model = quantloom.load(path, device="cpu", threads=3)
expected = model.generate([1, 2, 3], max_new_tokens=30).tokens
stream = model.stream([1, 2, 3], max_new_tokens=30)
head = [next(stream).token for _ in range(10)]
assert child_of(lambda: head + [piece.token for piece in stream]) == expected
assert head + [piece.token for piece in stream] == expected
""",
    "in a thread, whose child takes Ctrl-C": """
model = quantloom.load(path, device="cpu", threads=3)
def interrupt(number, frame):
    raise KeyboardInterrupt
def in_child():
    signal.signal(signal.SIGALRM, interrupt)
    session = model.session(prefill_chunk=16)
    whole = session.generate(LONG, max_new_tokens=1).timings.prefill_seconds
    session.reset()
    try:
        signal.setitimer(signal.ITIMER_REAL, whole / 4)
        session.generate(LONG, max_new_tokens=1)
    except KeyboardInterrupt:
        return len(session.tokens)
said = []
thread = threading.Thread(target=lambda: said.append(child_of(in_child)))
thread.start()
thread.join()
assert said and 0 < said[0] < len(LONG), said
""",
    "while another thread generates": """
model = quantloom.load(path, device="cpu", threads=3)
expected = model.generate([1, 2, 3], max_new_tokens=20).tokens
session = model.session()
stop = threading.Event()
between = threading.Lock()  # held where the session has no generation open, and may be used
stream = session.stream(LONG, max_new_tokens=50)
def endless():
    global stream
    while not stop.is_set():
        for _ in range(40):
            next(stream)
        with between:
            stream.close()
            stream = session.stream(LONG, max_new_tokens=50)
worker = threading.Thread(target=endless, daemon=True)  # what fails here ends the process
worker.start()
time.sleep(0.1)
def in_child():
    try:
        session.generate([1, 2, 3])
        return "not refused"
    except quantloom.SessionBusy as error:
        assert "forked" in str(error) or "still open" in str(error), error
    stream.close()
    tokens = model.generate([1, 2, 3], max_new_tokens=20).tokens
    session.close()
    model.close()
    return tokens
for _ in range(5):
    with between:
        said = child_of(in_child)
    assert said == expected, said
    time.sleep(0.013)
stop.set()
worker.join()
""",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Synthetic(
        layers=2, embedding=256, heads=4, head_size=64, feed_forward=768, context=2048
    )
    return recipe.write(tmp_path_factory.mktemp("fork"))


@pytest.mark.parametrize("case", CASES)
def test_fork(case: str, path: Path) -> None:
    ended = run(SETUP + CASES[case], path, limit=120)
    assert (ended.code, ended.err) == (0, "")
