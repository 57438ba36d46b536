"""The rates that a bench sets its limits by."""

from __future__ import annotations

import numpy as np
import pytest

from quantloom import Tensor, _quantloom
from quantloom.ceilings import product_seconds, read_bandwidth
from quantloom.errors import InvalidArgument


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
