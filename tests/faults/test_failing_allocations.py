"""Every large host allocation of a load and of a generation fails once: a typed error, no leak."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import quantloom
from quantloom import OutOfMemory, _quantloom
from synthetic_model import Synthetic

POINT = "host_allocation"
PROMPT = [i % 90 for i in range(100)]
OPTIONS: dict[str, Any] = {"max_new_tokens": 6, "logit_bias": {3: 1.0}, "temperature": 0.7}
OPTIONS |= {"seed": 1, "logprobs": 2}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Synthetic(format="Q8_0").write(tmp_path_factory.mktemp("allocations"))


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    _quantloom.arm_fault(POINT, 0)


def resident() -> int:
    gc.collect()
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("this system does not tell a process its memory")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def fail_every(work: Callable[[], object], after: Callable[[], None]) -> int:
    """Fails each passing of the point in turn, until `work` ends well; how many there were."""
    _quantloom.arm_fault(POINT, 0)
    work()
    points = _quantloom.fault_points_passed(POINT)
    for n in range(1, points + 1):
        _quantloom.arm_fault(POINT, n)
        with pytest.raises(OutOfMemory) as caught:
            work()
        assert isinstance(caught.value, MemoryError)
        assert str(caught.value) and caught.value.subject
        _quantloom.arm_fault(POINT, 0)
        after()
    _quantloom.arm_fault(POINT, points + 1)
    work()
    assert _quantloom.fault_points_passed(POINT) == points
    return points


def test_load(path: Path) -> None:
    def work() -> None:
        quantloom.load(path, device="cpu").close()

    assert fail_every(work, work) >= 1


def test_generate(path: Path) -> None:
    with quantloom.load(path, device="cpu") as model:
        expected = model.generate(PROMPT, **OPTIONS)

        def again() -> None:
            assert model.generate(PROMPT, **OPTIONS).tokens == expected.tokens

        assert fail_every(again, again) >= 8


def test_a_session_goes_on(path: Path) -> None:
    with quantloom.load(path, device="cpu") as model, model.session() as session:
        expected = model.generate(PROMPT, **OPTIONS)

        def work() -> None:
            session.reset()
            assert session.generate(PROMPT, **OPTIONS).tokens == expected.tokens

        assert fail_every(work, work) >= 1


def test_logits(path: Path) -> None:
    with quantloom.load(path, device="cpu") as model:
        expected = model.logits(PROMPT)

        def again() -> None:
            assert model.logits(PROMPT).tobytes() == expected.tobytes()

        assert fail_every(again, again) >= 8


@pytest.mark.parametrize("options", [{"precision": "fast"}, {"cache_type": "q8_0"}])
def test_other_settings(options: dict[str, str], tmp_path: Path) -> None:
    path = Synthetic(format="Q4_0", head_size=32).write(tmp_path)
    with quantloom.load(path, device="cpu", **options) as model:  # type: ignore[arg-type]
        expected = model.generate(PROMPT, **OPTIONS).tokens

        def again() -> None:
            assert model.generate(PROMPT, **OPTIONS).tokens == expected

        assert fail_every(again, again) >= 8


def test_memory_comes_back(path: Path) -> None:
    """A hundred rounds of failures at every point hold no more than the first ones did."""

    def round_of_failures() -> None:
        with quantloom.load(path, device="cpu") as model:
            for n in range(1, 12):
                _quantloom.arm_fault(POINT, n)
                with contextlib.suppress(OutOfMemory):
                    model.generate(PROMPT, max_new_tokens=2)
            _quantloom.arm_fault(POINT, 0)
            assert model.cache_bytes >= 32 * 1024

    for _ in range(10):
        round_of_failures()
    before = resident()
    for _ in range(40):
        round_of_failures()
    # 440 leaked caches would be 14 MiB at least.
    assert resident() - before <= 4 << 20
