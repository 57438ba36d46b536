"""The device of these tests, and what one test changes for the whole process put back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quantloom import _quantloom


@pytest.fixture(autouse=True)
def same_number_of_threads() -> Iterator[None]:
    before = _quantloom.thread_count()
    yield
    _quantloom.set_thread_count(before)


@pytest.fixture
def device() -> str:
    """What tests run on that run on a GPU as well; tests/gpu imports them and names it."""
    return "cpu"
