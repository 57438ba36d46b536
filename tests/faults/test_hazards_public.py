"""All 30 hazards of GGUF files through the public calls: one typed error each, and nothing left.

What a hostile file of each kind looks like in full is tested with the room that refuses it (the
reader, the model, the text, the session); here every row meets what a user calls.
"""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

import pytest
from builder import TENSOR_TYPES
from hazard_cases import CASES as READER_CASES
from peak_memory import peak_above_now
from public_hazards import HAZARDS, Hazard, bad_scale, load

import quantloom
import quantloom.cuda
from quantloom import GGUFError, QuantloomError

ROWS = range(1, 31)


@pytest.mark.parametrize("case", HAZARDS, ids=lambda case: f"{case.row}-{case.name}")
def test_typed_error(case: Hazard, device: str, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    held = device_memory(device)
    risen = peak_above_now()
    with pytest.raises(QuantloomError) as caught:
        case.call(path, device)
    error = caught.value
    assert isinstance(error, case.error)
    assert case.message in str(error)
    assert error.subject is not None and error.subject.endswith(case.subject)
    assert case.offset is None or error.offset == case.offset
    assert case.limit is None or error.limit == case.limit
    assert risen() < 256 << 20
    assert mappings_of(tmp_path) == 0
    assert device_memory(device) == held


@pytest.mark.parametrize("case", READER_CASES, ids=lambda case: f"{case.row}-{case.name}")
def test_what_open_refuses_load_refuses_the_same_way(
    case: Any, device: str, tmp_path: Path
) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(case.data)
    started = time.process_time()
    errors = []
    for call in (quantloom.open, lambda path: load(path, device)):
        with pytest.raises(GGUFError) as caught:
            call(path)
        errors.append(caught.value)
    assert time.process_time() - started < 4
    opened, loaded = errors
    assert case.message in str(loaded)
    assert str(opened) == str(loaded)
    for attribute in ("subject", "offset", "limit"):
        assert getattr(opened, attribute) == getattr(loaded, attribute)
    assert mappings_of(tmp_path) == 0


def test_every_row_is_covered() -> None:
    assert {case.row for case in READER_CASES} | {case.row for case in HAZARDS} == set(ROWS)


def test_a_scale_is_named_by_its_byte(tmp_path: Path) -> None:
    path = bad_scale("Q4_0", float("nan"), 3)(tmp_path)
    with quantloom.open(path) as file:
        expected = file.tensors["blk.1.attn_q.weight"].offset + 3 * TENSOR_TYPES["Q4_0"][2]
    with pytest.raises(GGUFError) as caught:
        load(path, "cpu")
    assert caught.value.offset == expected


def device_memory(device: str) -> int:
    """Bytes of the GPU that this process's tensors hold."""
    gc.collect()
    return 0 if device == "cpu" else int(quantloom.cuda.memory().in_use)


def mappings_of(folder: Path) -> int:
    """How many files of a folder are mapped or open in this process; 0 where that is not told."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return 0
    names = [line for line in maps.read_text().splitlines() if str(folder) in line]
    for link in Path("/proc/self/fd").iterdir():
        try:
            names += [os.readlink(link)] if str(folder) in os.readlink(link) else []
        except OSError:  # the descriptor of this very listing
            continue
    return len(names)
