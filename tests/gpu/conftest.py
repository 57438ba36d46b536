"""Everything in this folder needs an NVIDIA GPU and says so where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

import quantloom.cuda

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    status = quantloom.cuda.status()
    for item in items:
        if FOLDER not in item.path.parents:
            continue
        item.add_marker(pytest.mark.gpu)
        if not status.available:
            item.add_marker(pytest.mark.skip(reason=f"no GPU: {status.reason}"))
