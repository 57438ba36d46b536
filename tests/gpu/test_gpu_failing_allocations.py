"""Allocations and CUDA calls that fail, one by one, with a model on the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import quantloom
from faults.test_failing_allocations import (  # noqa: F401  # found here, with this folder's seam
    OPTIONS,
    POINTS,
    PROMPT,
    Seam,
    fail_every,
    path,
    seams,
    test_a_session_goes_on,
    test_a_stream_that_fails_between_two_tokens,
    test_generate,
    test_load,
    test_logits,
    test_memory_comes_back,
    test_other_settings,
    test_twenty_loads_give_everything_back,
)


# A point that is a call to CUDA means as many generations as there are calls that can fail.
@pytest.fixture(params=[*POINTS[:2], pytest.param(POINTS[2], marks=pytest.mark.slow_emulated)])
def seam(request: pytest.FixtureRequest, started_gpu: None) -> Iterator[Seam]:
    yield from seams("cuda", request.param)


def test_layers_split_between_gpu_and_cpu(path: Path, seam: Seam) -> None:  # noqa: F811
    with quantloom.load(path, device="cuda", gpu_layers=1) as model:
        expected = model.generate(PROMPT, **OPTIONS).tokens

        def again() -> None:
            assert model.generate(PROMPT, **OPTIONS).tokens == expected

        assert fail_every(seam, again, again) >= 1
