"""What one test changes for the whole process is put back before the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quantloom import _quantloom


@pytest.fixture(autouse=True)
def same_number_of_threads() -> Iterator[None]:
    before = _quantloom.thread_count()
    yield
    _quantloom.set_thread_count(before)
