"""The comparison of decoded values: of their bits."""

from __future__ import annotations

import numpy as np


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal as bits, but any NaN equals any other."""
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    found_nan, expected_nan = np.isnan(found), np.isnan(expected)
    np.testing.assert_array_equal(found_nan, expected_nan)
    number = ~found_nan
    np.testing.assert_array_equal(
        found[number].view(np.uint32), expected[number].view(np.uint32), strict=True
    )
