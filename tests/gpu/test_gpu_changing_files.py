"""Files that others change while the GPU loads them, and afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import quantloom
from faults.test_changing_files import (  # noqa: F401  # found here, with this folder's device
    test_a_change_during_a_load,
    test_replacing_and_deleting_leave_a_loaded_model_alone,
)
from synthetic_model import Synthetic


def test_a_model_on_a_gpu_does_not_need_its_file_any_more(tmp_path: Path) -> None:
    path = Synthetic(embedding=256, feed_forward=1024).write(tmp_path)
    with quantloom.load(path, device="cuda") as model:
        before = model.logits([1, 2, 3]).tobytes()
        os.truncate(path, 4096)
        assert model.logits([1, 2, 3]).tobytes() == before
