"""The borders between rooms: an #include may only point to a room to the left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ORDER = [
    "base",
    "formats",
    "gguf",
    "loader",
    "device",
    "ops",
    "cpu",
    "cuda",
    "model",
    "generate",
    "bindings",
]
LEAVES = {"base", "formats"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]', re.MULTILINE)
# The sampler is defined once for every device; these two headers are that definition.
SHARED = {"ops/sampling.h", "ops/philox.h"}
SUFFIXES = {".h", ".cuh", ".cpp", ".cu", ".inc"}


def sources(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES)


def faults(root: Path) -> list[str]:
    """Every include under `root` that breaks a border, as 'file includes what'."""
    found = []
    for path in sources(root / "csrc"):
        room = path.relative_to(root / "csrc").parts[0]
        for quote, target in INCLUDE.findall(path.read_text()):
            name = f"{path.relative_to(root)} includes {target}"
            head = target.split("/")[0]
            if head in ("Python.h", "pybind11") and room != "bindings":
                found.append(name)
            if quote == "<":
                continue
            if head == "kernels" or (root / "kernels" / target).exists():
                if room not in ("device", "cuda", "loader"):
                    found.append(name)
                continue
            if head not in ORDER:
                found.append(name)
            elif head != room and (room in LEAVES or ORDER.index(head) > ORDER.index(room)):
                found.append(name)
    for path in sources(root / "kernels"):
        for quote, target in INCLUDE.findall(path.read_text()):
            if quote == "<":
                continue
            inside = (root / "kernels" / target).exists()
            if not inside and target.split("/")[0] != "formats" and target not in SHARED:
                found.append(f"{path.relative_to(root)} includes {target}")
    return found


def test_no_arrow_goes_back(repository: Path) -> None:
    assert faults(repository) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("csrc/base/a.h", '#include "formats/format.h"'),
        ("csrc/gguf/a.cpp", '#include "model/model.h"'),
        ("csrc/model/a.cpp", "#include <pybind11/pybind11.h>"),
        ("kernels/a.cu", '#include "ops/operations.h"'),
    ],
)
def test_the_check_sees_a_broken_border(tmp_path: Path, path: str, line: str) -> None:
    (tmp_path / "csrc").mkdir()
    (tmp_path / "kernels").mkdir()
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(line + "\n")
    assert len(faults(tmp_path)) == 1
