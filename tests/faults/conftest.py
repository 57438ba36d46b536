"""The devices of these tests, and what one test changes for the whole process put back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import quantloom.cuda
from quantloom import _quantloom


@pytest.fixture(autouse=True)
def same_number_of_threads() -> Iterator[None]:
    before = _quantloom.thread_count()
    yield
    _quantloom.set_thread_count(before)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device in turn; without a GPU the second is skipped and says why."""
    if request.param == "cuda":
        status = quantloom.cuda.status()
        if not status.available:
            pytest.skip(f"no GPU: {status.reason}")
    return str(request.param)
