"""The rates that a bench sets its limits by."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from quantloom import Tensor, _quantloom, ceilings
from quantloom.ceilings import Recording, product_seconds, read_bandwidth
from quantloom.errors import DeviceError, InvalidArgument


@pytest.mark.parametrize("size", [16, 4096, 3 * (1 << 18) + 16, 10_000_000])
def test_every_byte_is_read(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    total = np.zeros(1, np.uint32)
    _quantloom.read_once(Tensor(data)._native, Tensor(total)._native)
    assert total[0] == np.bitwise_xor.reduce(data.view(np.uint32))


def test_what_is_not_read() -> None:
    total = Tensor(np.zeros(1, np.uint32))
    data = Tensor(np.zeros(64, np.uint8))
    for wrong in (data[:15], data[::2]):
        with pytest.raises(InvalidArgument, match="whole on 16 bytes"):
            _quantloom.read_once(wrong._native, total._native)
    with pytest.raises(InvalidArgument, match="one uint32"):
        _quantloom.read_once(data._native, data._native)


def test_rates_are_a_machine_s() -> None:
    assert 1e8 < read_bandwidth("cpu", repeat=2) < 1e13
    seconds, product = product_seconds("cpu", [(64, 32), (32, 32)], 8)
    assert product == "float32 NumPy"
    assert seconds[64, 32] == pytest.approx(2 * seconds[32, 32])


class Driver:
    """libcuda's part in a recording: what was asked of it; one function may fail."""

    def __init__(self, fails: str = "") -> None:
        self.asked: list[str] = []
        self._fails = fails

    def __getattr__(self, name: str) -> Callable[..., int]:
        def function(*arguments: Any) -> int:
            self.asked.append(name)
            if name == self._fails:
                return 900
            if name in ("cuStreamEndCapture", "cuGraphInstantiateWithFlags"):
                handle = arguments[1 if name == "cuStreamEndCapture" else 0]
                ctypes.cast(handle, ctypes.POINTER(ctypes.c_void_p))[0] = 7
            return 0

        return function


BEGIN, END, INSTANTIATE = (
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
)


def test_calls_are_recorded_once_and_started_together() -> None:
    driver = Driver()
    calls = [lambda: driver.asked.append("first"), lambda: driver.asked.append("second")]
    with Recording(driver, ctypes.c_void_p(5), calls) as recording:
        recorded = [BEGIN, "first", "second", END, INSTANTIATE, "cuGraphDestroy"]
        assert driver.asked == recorded
        recording.start()
        recording.start()
    assert driver.asked[len(recorded) :] == ["cuGraphLaunch"] * 2 + ["cuGraphExecDestroy"]


@pytest.mark.parametrize(
    ("fails", "asked"),
    [
        (BEGIN, [BEGIN]),
        (END, [BEGIN, "call", END]),
        (INSTANTIATE, [BEGIN, "call", END, INSTANTIATE, "cuGraphDestroy"]),
    ],
)
def test_a_step_that_the_driver_refuses(fails: str, asked: list[str]) -> None:
    driver = Driver(fails)
    with pytest.raises(DeviceError, match=r"^cu[A-Za-z]+ failed with status 900$"):
        Recording(driver, ctypes.c_void_p(5), [lambda: driver.asked.append("call")])
    assert driver.asked == asked


def test_a_call_that_fails_leaves_no_stream_recording() -> None:
    driver = Driver()

    def fail() -> None:
        raise DeviceError("cublasGemmEx failed with status 15")

    with pytest.raises(DeviceError, match="cublasGemmEx"):
        Recording(driver, ctypes.c_void_p(5), [fail])
    assert driver.asked == [BEGIN, END, "cuGraphDestroy"]


@pytest.mark.parametrize(("length", "launches"), [(1e-4, 20), (1e-3, 2), (1.0, 1)])
def test_short_graphs_are_launched_many_at_once(
    length: float, launches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(ceilings.time, "perf_counter", lambda: clock[0])
    started: list[float] = []

    def start() -> None:
        started.append(clock[0])
        clock[0] += length

    assert ceilings._seconds_of_launch("cpu", start) == pytest.approx(length)
    assert len(started) == 2 + 6 * launches
