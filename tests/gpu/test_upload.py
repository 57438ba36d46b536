"""Large host arrays go up through pinned double buffers; errors on the way leave nothing behind."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from quantloom import Tensor, _quantloom, cuda
from quantloom.errors import DeviceError, OutOfMemory


@pytest.fixture(scope="module")
def large() -> np.ndarray:
    """As large that Tensor.to uses the upload, and no multiple of its pieces."""
    return np.random.default_rng(0).integers(0, 2**63, (65 << 17) + 3, dtype=np.uint64)


def test_every_byte_arrives(large: np.ndarray) -> None:
    tensor = Tensor(large, device="cuda")
    np.testing.assert_array_equal(tensor.numpy(), large)


def test_a_strided_array_arrives_in_order(large: np.ndarray) -> None:
    wide = large[: 65 << 17].reshape(-1, 256)
    tensor = Tensor(np.tile(wide, (2, 1))[::-2], device="cuda")
    np.testing.assert_array_equal(tensor.numpy(), np.tile(wide, (2, 1))[::-2])


@pytest.mark.parametrize("point", ["cuda_call", "device_allocation", "host_allocation"])
def test_a_failure_on_the_way_leaves_nothing_behind(large: np.ndarray, point: str) -> None:
    _quantloom.arm_fault(point, 0)
    del_me = Tensor(large, device="cuda")
    del del_me
    passed = _quantloom.fault_points_passed(point)
    assert passed >= 1
    tried = sorted({*range(1, min(passed, 40) + 1), *range(40, passed + 1, 37), passed})
    for n in tried:
        gc.collect()
        before = cuda.memory().in_use
        _quantloom.arm_fault(point, n)
        try:
            # Which calls there are depends a little on how the threads take turns.
            Tensor(large, device="cuda")
            reached = _quantloom.fault_points_passed(point)
            assert n > 40 or reached < n
        except (DeviceError, OutOfMemory):
            pass
        finally:
            _quantloom.arm_fault(point, 0)
        gc.collect()
        assert cuda.memory().in_use == before
    np.testing.assert_array_equal(Tensor(large, device="cuda").numpy(), large)
