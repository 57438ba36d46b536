"""Everything in this folder needs an NVIDIA GPU and says so where there is none.

With QUANTLOOM_REQUIRE_GPU fewer GPUs than its number end the run with an error instead of skips.
The emulator of tools/emulator is a GPU here, except for tests marked `measures_hardware`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import quantloom
import quantloom.cuda
from synthetic_model import Synthetic

FOLDER = Path(__file__).parent


def emulated() -> bool:
    status = quantloom.cuda.status()
    return status.available and quantloom.cuda.devices()[0].name.startswith("emulated GPU")


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three layers."""
    recipe = Synthetic(
        layers=3, embedding=256, heads=8, head_size=64, feed_forward=512, context=1024,
        format="Q4_K",
    )  # fmt: skip
    return recipe.write(tmp_path_factory.mktemp("gpu"))


@pytest.fixture(scope="session")
def started_gpu(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The context and the kernels take their memory now, before a test measures what it takes."""
    for kind in ("F32", "Q8_0"):
        path = Synthetic(format=kind).write(tmp_path_factory.mktemp("started"))
        with quantloom.load(path, device="cuda") as model:
            model.generate(list(range(80)), max_new_tokens=4)


@pytest.fixture
def is_emulated() -> bool:
    return emulated()


@pytest.fixture
def device(started_gpu: None) -> str:
    """Of the tests of tests/faults that files here import, whose own fixture says cpu."""
    return "cuda"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    status = quantloom.cuda.status()
    required = int(os.environ.get("QUANTLOOM_REQUIRE_GPU", "0"))
    if status.devices < required:
        said = f": {status.reason}" if status.reason else ""
        raise pytest.UsageError(
            f"{status.devices} of the {required} GPUs that QUANTLOOM_REQUIRE_GPU asks for{said}"
        )
    for item in items:
        if FOLDER not in item.path.parents:
            continue
        item.add_marker(pytest.mark.gpu)
        if not status.available:
            item.add_marker(pytest.mark.skip(reason=f"no GPU: {status.reason}"))
        elif item.get_closest_marker("measures_hardware") is not None and emulated():
            item.add_marker(pytest.mark.skip(reason="measures hardware, and this GPU is emulated"))
