"""Marks of parameters that the emulator takes long for."""

from __future__ import annotations

from typing import Any

import pytest


def slow_but(fast: Any, values: list[Any]) -> list[Any]:
    """The values, all but `fast` marked as slow on the emulator."""
    slow = pytest.mark.slow_emulated
    return [v if v == fast else pytest.param(v, marks=slow) for v in values]
