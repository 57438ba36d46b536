"""Every large allocation and every call to CUDA fails once: a typed error, no leak, no wrong text.

The points: large allocations of the host (`host_allocation`, pinned memory among them), of a GPU's
pool (`device_allocation`), and calls to the CUDA runtime and launches (`cuda_call`).
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import quantloom
import quantloom.cuda
from quantloom import DeviceError, OutOfMemory, _quantloom
from synthetic_model import Synthetic

PROMPT = [i % 90 for i in range(100)]
OPTIONS: dict[str, Any] = {"max_new_tokens": 6, "logit_bias": {3: 1.0}, "temperature": 0.7}
OPTIONS |= {"seed": 1, "logprobs": 2, "ignore_eos": True}
POINTS = ["host_allocation", "device_allocation", "cuda_call"]


class Seam(NamedTuple):
    """A kind of point that fails, on a device."""

    device: str
    point: str

    def held(self) -> int:
        """Bytes of the GPU that this process's tensors hold."""
        gc.collect()
        return 0 if self.device == "cpu" else int(quantloom.cuda.memory().in_use)


# The fewest points of a generation. On a GPU one large buffer of a session is on the host.
LEAST = {
    Seam("cpu", "host_allocation"): 8,
    Seam("cuda", "host_allocation"): 1,
    Seam("cuda", "device_allocation"): 8,
    Seam("cuda", "cuda_call"): 100,
}


def seams(device: str, point: str) -> Iterator[Seam]:
    """A seam, and no point armed behind its test."""
    yield Seam(device, point)
    for each in POINTS:
        _quantloom.arm_fault(each, 0)


@pytest.fixture(params=["host_allocation"])
def seam(request: pytest.FixtureRequest) -> Iterator[Seam]:
    yield from seams("cpu", request.param)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Synthetic(format="Q8_0").write(tmp_path_factory.mktemp("allocations"))


def resident() -> int:
    gc.collect()
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("this system does not tell a process its memory")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def fail_every(seam: Seam, work: Callable[[], object], after: Callable[[], None]) -> int:
    """Fails each passing of the point in turn; how many there were.

    `work` and `after` assert what they get themselves. On a GPU a call may fail without an error:
    where only reuse of memory hangs on it, the pool waits for the whole device instead. And which
    thread of an upload makes the last calls depends on how they take turns.
    """
    point = seam.point
    work()
    work()  # a session on a GPU records its steps the second time; from then on it replays them
    _quantloom.arm_fault(point, 0)
    work()
    points = _quantloom.fault_points_passed(point)
    silent = []
    for n in range(1, points + 1):
        before = seam.held()
        _quantloom.arm_fault(point, n)
        try:
            work()
        except (OutOfMemory, DeviceError) as error:
            assert str(error) and error.subject, error
            assert point == "cuda_call" or isinstance(error, OutOfMemory)
            assert isinstance(error, MemoryError) == isinstance(error, OutOfMemory)
            error.__traceback__ = None
        else:
            silent.append(n)
        _quantloom.arm_fault(point, 0)
        assert seam.held() == before, f"point {n} of {points} leaves memory behind"
        after()
    print(f"{seam.device} {point}: {points} points, {points - len(silent)} errors")
    assert len(silent) <= (0.2 * points if point == "cuda_call" else 0), silent
    return points


def test_load(path: Path, seam: Seam) -> None:
    def work() -> None:
        quantloom.load(path, device=seam.device).close()

    assert fail_every(seam, work, work) >= 1


def test_generate(path: Path, seam: Seam) -> None:
    with quantloom.load(path, device=seam.device) as model:
        expected = model.generate(PROMPT, **OPTIONS)

        def again() -> None:
            assert model.generate(PROMPT, **OPTIONS).tokens == expected.tokens

        assert fail_every(seam, again, again) >= LEAST[seam]


def test_a_session_goes_on(path: Path, seam: Seam) -> None:
    if seam == Seam("cuda", "host_allocation"):
        pytest.skip("a session on a GPU allocates nothing more on the host")
    with quantloom.load(path, device=seam.device) as model, model.session() as session:
        expected = model.generate(PROMPT, **OPTIONS)

        def work() -> None:
            session.reset()
            assert session.generate(PROMPT, **OPTIONS).tokens == expected.tokens

        def reuse() -> None:
            """What the failed one left in the cache is whole."""
            again = session.generate(PROMPT, **OPTIONS)
            assert again.tokens == expected.tokens

        assert fail_every(seam, work, reuse) >= 1


@pytest.mark.slow_emulated
def test_a_stream_that_fails_between_two_tokens(path: Path, seam: Seam) -> None:
    if seam.point == "host_allocation":
        pytest.skip("a step allocates nothing on the host")
    with quantloom.load(path, device=seam.device) as model, model.session() as session:
        expected = model.generate(PROMPT, **OPTIONS).tokens
        for n in range(1, 60):
            session.reset()
            stream = session.stream(PROMPT, **OPTIONS)
            taken = [next(stream).token]
            _quantloom.arm_fault(seam.point, n)
            with contextlib.suppress(OutOfMemory, DeviceError):
                taken += [piece.token for piece in stream]
            _quantloom.arm_fault(seam.point, 0)
            stream.close()
            taken = [token for token in taken if token is not None]
            assert taken == expected[: len(taken)]
            assert session.generate(PROMPT, **OPTIONS).tokens == expected


def test_logits(path: Path, seam: Seam) -> None:
    with quantloom.load(path, device=seam.device) as model:
        expected = model.logits(PROMPT)

        def again() -> None:
            assert model.logits(PROMPT).tobytes() == expected.tobytes()

        assert fail_every(seam, again, again) >= 1


@pytest.mark.parametrize("options", [{"precision": "fast"}, {"cache_type": "q8_0"}])
def test_other_settings(options: dict[str, Any], seam: Seam, tmp_path: Path) -> None:
    if seam.point == "cuda_call":
        pytest.skip("the calls are those of the default settings")
    path = Synthetic(format="Q4_0", head_size=32).write(tmp_path)
    with quantloom.load(path, device=seam.device, **options) as model:
        expected = model.generate(PROMPT, **OPTIONS).tokens

        def again() -> None:
            assert model.generate(PROMPT, **OPTIONS).tokens == expected

        assert fail_every(seam, again, again) >= LEAST[seam]


@pytest.mark.slow_emulated
def test_memory_comes_back(path: Path, seam: Seam) -> None:
    """Rounds of failures at every point hold no more than the first ones did."""

    def round_of_failures() -> None:
        with quantloom.load(path, device=seam.device) as model:
            for n in range(1, 12):
                _quantloom.arm_fault(seam.point, n * (1 if seam.point != "cuda_call" else 29))
                with contextlib.suppress(OutOfMemory, DeviceError):
                    model.generate(PROMPT, max_new_tokens=2)
            _quantloom.arm_fault(seam.point, 0)
            assert model.cache_bytes >= 32 * 1024

    for _ in range(10):
        round_of_failures()
    before = resident()
    held = seam.held()
    for _ in range(40 if seam.device == "cpu" else 15):
        round_of_failures()
    # 165 leaked caches would be 5 MiB at least.
    assert resident() - before <= 4 << 20
    assert seam.held() == held


def test_twenty_loads_give_everything_back(path: Path, device: str) -> None:
    grown = []
    for _ in range(20):
        with quantloom.load(path, device=device) as model:
            model.generate(PROMPT, **OPTIONS)
        del model
        if device != "cpu":
            gc.collect()
            quantloom.cuda.trim()
            state = quantloom.cuda.memory()
            grown.append((resident(), state.in_use, state.free))
        else:
            grown.append((resident(), 0, 0))
    assert grown[-1][0] - grown[4][0] <= 4 << 20
    assert grown[-1][1] == grown[4][1]
    if "PYTEST_XDIST_WORKER" not in os.environ:  # other processes have memory of the GPU too
        assert grown[-1][2] == grown[4][2]
