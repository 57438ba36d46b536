"""Row 21: NaN and Inf in the scales of blocks are found, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builder import TENSOR_TYPES, Builder

import quantloom
from block_scales import SCALES
from quantloom.errors import GGUFError

BLOCKS = 200  # more than three strides of the scan


def opened(tmp_path: Path, kind: str, blocks: np.ndarray) -> quantloom.File:
    path = tmp_path / "scan.gguf"
    shape = (TENSOR_TYPES[kind][1], BLOCKS)
    path.write_bytes(Builder().tensor("t", kind, shape, blocks.tobytes()).build())
    return quantloom.open(path)


def finite_blocks(kind: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    blocks = rng.integers(0, 256, (BLOCKS, TENSOR_TYPES[kind][2]), dtype=np.uint8)
    for place in SCALES[kind]:
        scales = (rng.standard_normal(BLOCKS) * 100).astype("<f2")
        blocks[:, place : place + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
    return blocks


@pytest.mark.parametrize("kind", SCALES)
def test_finite_scales_pass(kind: str, tmp_path: Path) -> None:
    with opened(tmp_path, kind, finite_blocks(kind)) as file:
        file.tensors["t"].check_finite()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("kind", SCALES)
def test_bad_scales_are_found(kind: str, value: float, tmp_path: Path) -> None:
    size = TENSOR_TYPES[kind][2]
    for place in SCALES[kind]:
        for block in (0, 63, 64, 130, BLOCKS - 1):
            blocks = finite_blocks(kind)
            blocks[block, place : place + 2] = np.array([value], "<f2").view(np.uint8)
            with opened(tmp_path, kind, blocks) as file:
                tensor = file.tensors["t"]
                message = f"'t' \\({kind}\\) has NaN or Inf in block {block} at byte"
                with pytest.raises(GGUFError, match=message) as raised:
                    tensor.check_finite()
                assert raised.value.subject == "t"
                assert raised.value.offset == tensor.offset + block * size


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_floats(kind: str, value: float, tmp_path: Path) -> None:
    wide = np.linspace(-3e38, 3e38, BLOCKS, dtype=np.float32)
    for bad in (False, True):
        values = wide.copy()
        if bad:
            values[150] = value
        data = values if kind == "F32" else values.view(np.uint32) >> 16
        with opened(tmp_path, kind, data.astype("<f4" if kind == "F32" else "<u2")) as file:
            if bad:
                with pytest.raises(GGUFError, match="block 150"):
                    file.tensors["t"].check_finite()
            else:
                file.tensors["t"].check_finite()


def test_scale_of_iq1_m_in_four_words(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    blocks = rng.integers(0, 256, (BLOCKS, 56), dtype=np.uint8)
    scales = blocks[:, 48:].view("<u2")
    scales[:] = (scales & 0x0FFF) | np.array([0x0000, 0x0000, 0x0000, 0x3000], np.uint16)
    with opened(tmp_path, "IQ1_M", blocks) as file:
        file.tensors["t"].check_finite()
    scales[77] |= np.array([0x0000, 0x0000, 0xC000, 0x7000], np.uint16)  # half 0x7c00: infinity
    with (
        opened(tmp_path, "IQ1_M", blocks) as file,
        pytest.raises(GGUFError, match="block 77"),
    ):
        file.tensors["t"].check_finite()


@pytest.mark.parametrize("kind", [k for k in TENSOR_TYPES if k not in ("Q8_1", "Q8_K", "Q1_0")])
def test_agrees_with_decoding_on_random_bytes(kind: str, tmp_path: Path) -> None:
    """The first block that the scan names is the first that decodes to NaN or Inf, if any."""
    rng = np.random.default_rng(3)
    elements, size = TENSOR_TYPES[kind][1:]
    blocks = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    with opened(tmp_path, kind, blocks) as file:
        tensor = file.tensors["t"]
        with np.errstate(invalid="ignore"):
            weights = tensor.dequantize(np.float64).reshape(BLOCKS, elements)
        bad = np.flatnonzero(~np.isfinite(weights).all(axis=1))
        if bad.size == 0 or kind in ("F64", "I8", "I16", "I32", "I64"):
            tensor.check_finite()
        else:
            with pytest.raises(GGUFError, match=f"in block {bad[0]} at"):
                tensor.check_finite()


def test_real_files_pass(shared_data: Path) -> None:
    for path in sorted((shared_data / "models").glob("*.gguf")):
        with quantloom.open(path) as file:
            for tensor in file.tensors.values():
                tensor.check_finite()
