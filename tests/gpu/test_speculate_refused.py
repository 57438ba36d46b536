"""Speculation is refused where it could give other tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

import quantloom
from quantloom import DeviceError
from synthetic_model import Synthetic


@pytest.mark.parametrize("gpu_layers", [None, 1])
def test_refused_where_layers_are_on_the_gpu(gpu_layers: int | None, tmp_path: Path) -> None:
    path = Synthetic(layers=3).write(tmp_path)
    with quantloom.load(path, device="cuda", gpu_layers=gpu_layers) as model:
        with pytest.raises(DeviceError, match="speculate runs on the CPU only"):
            model.generate([1, 2, 3], max_new_tokens=4, speculate="ngram")
        assert len(model.generate([1, 2, 3], max_new_tokens=4, ignore_eos=True).tokens) == 4
