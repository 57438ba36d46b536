"""The devices of these tests, and what one test changes for the whole process put back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import quantloom.cuda
from quantloom import _quantloom
from synthetic_model import Synthetic

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a GPU carries the marker `gpu`."""
    for item in items:
        if FOLDER not in item.path.parents:
            continue
        of_parameters = getattr(item, "callspec", None)
        values = of_parameters.params.values() if of_parameters is not None else ()
        on_cuda = any(str(value).startswith("cuda") for value in values)
        if on_cuda or "gpu" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def same_number_of_threads() -> Iterator[None]:
    before = _quantloom.thread_count()
    yield
    _quantloom.set_thread_count(before)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Each device in turn; without a GPU the second is skipped and says why."""
    if request.param == "cuda":
        request.getfixturevalue("gpu")
    return str(request.param)


@pytest.fixture(scope="session")
def started_gpu(tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """Why there is no GPU; where there is one, its context and kernels take their memory now."""
    status = quantloom.cuda.status()
    if not status.available:
        return status.reason
    for kind in ("F32", "Q8_0"):
        path = Synthetic(format=kind).write(tmp_path_factory.mktemp("started"))
        with quantloom.load(path, device="cuda") as model:
            model.generate(list(range(80)), max_new_tokens=4)
    return None


@pytest.fixture
def gpu(started_gpu: str | None) -> None:
    """For tests that need a GPU."""
    if started_gpu is not None:
        pytest.skip(f"no GPU: {started_gpu}")
