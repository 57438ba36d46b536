"""--json is JSON by the letter of its standard, whatever the file holds."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from command import good

from quantloom.gguf_writer import GGUFWriter


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    assert text.isascii() and text.count("\n") == 1
    return json.loads(text, parse_constant=refuse)


def inspected(folder: Path, **metadata: Any) -> Any:
    writer = GGUFWriter()
    writer.add("general.architecture", "llama")
    for key, value in metadata.items():
        writer.add(key, value)
    path = folder / "file.gguf"
    writer.write(path)
    return strict(good("inspect", str(path), "--json"))["metadata"]


def test_numbers_that_are_not_finite_are_strings(tmp_path: Path) -> None:
    metadata = inspected(
        tmp_path,
        one=float("nan"),
        several=np.array([np.inf, -np.inf, 0.5], np.float32),
    )
    assert metadata["one"] == "NaN"
    assert metadata["several"] == ["Infinity", "-Infinity", 0.5]


def test_bytes_that_are_no_text_are_base64(tmp_path: Path) -> None:
    metadata = inspected(tmp_path, one=b"caf\xe9", several=["café", b"\xff"])
    assert base64.b64decode(metadata["one"]["base64"]) == b"caf\xe9"
    assert metadata["several"] == ["café", {"base64": "/w=="}]


def test_a_name_that_is_no_text_is_base64(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.gguf"
    GGUFWriter().write(os.fsdecode(name))
    listed = strict(good("inspect", os.fsdecode(name), "--json"))
    assert base64.b64decode(listed["path"]["base64"]) == name


def test_quantize_says_what_did_not_go_by_the_mix(tmp_path: Path) -> None:
    source, target = tmp_path / "source.gguf", tmp_path / "target.gguf"
    writer = GGUFWriter()
    writer.add("general.architecture", "llama")
    writer.add_tensor("blk.0.ffn_up.weight", np.ones((2, 288), np.float32))
    writer.write(source)
    answer = strict(good("quantize", str(source), str(target), "--type", "q4_k_m", "--json"))
    assert answer["type"] == "Q4_K_M"
    (note,) = answer["notes"]
    assert note.startswith("blk.0.ffn_up.weight is Q5_0: rows of 288 are not whole Q4_K blocks")
    assert answer["formats"] == {"Q5_0": 1}
