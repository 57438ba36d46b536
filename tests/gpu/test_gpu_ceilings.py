"""The rates that a bench sets its limits by, on the GPU."""

from __future__ import annotations

import numpy as np
import pytest

from quantloom import Tensor, _quantloom
from quantloom.ceilings import product_seconds, read_bandwidth
from quantloom.errors import DeviceError


@pytest.mark.parametrize("size", [16, 4096, 3 * (1 << 18) + 16, 100_000_000])
def test_every_byte_is_read(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    total = Tensor(np.zeros(1, np.uint32), device="cuda")
    _quantloom.read_once(Tensor(data, device="cuda")._native, total._native)
    assert total.numpy()[0] == np.bitwise_xor.reduce(data.view(np.uint32))


@pytest.mark.measures_hardware
def test_rates_are_a_gpu_s() -> None:
    assert 1e11 < read_bandwidth("cuda:0", repeat=2) < 1e14
    try:
        seconds, product = product_seconds("cuda:0", [(1024, 512), (512, 1024)], 256)
    except DeviceError as error:
        if "is not on this machine" not in str(error):
            raise
        pytest.skip(str(error))
    assert product == "bfloat16 cuBLAS"
    for value in seconds.values():
        assert 1e11 < 2 * 256 * 1024 * 512 / value < 1e16
