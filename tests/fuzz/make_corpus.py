"""Writes the fuzz target's starting corpus and dictionary: small files with every feature."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gguf"))

from builder import SCALARS, TENSOR_TYPES, Builder, small_file


def corpus() -> dict[str, bytes]:
    files = {
        "empty": Builder().build(),
        "small_version2": small_file(version=2).build(),
        "small_version3": small_file().build(),
        "aligned_1": small_file(alignment=1).build(),
        "aligned_256": small_file(alignment=256).build(),
        "header_only": Builder().tensor("t", "F32", (8,)).header(),
        "split_1": split(1).build(),
        "split_2": split(2).build(),
        "split-00001-of-00003": b"model-00001-of-00003.gguf",
    }
    for kind in SCALARS:
        files[f"scalar_{kind}"] = Builder().key("key", kind, 1).build()
        files[f"array_{kind}"] = Builder().key("key", f"array:{kind}", [0, 1]).build()
    files["array_string"] = Builder().key("key", "array:string", ["a", "bc", ""]).build()
    for name, (_, elements, _) in TENSOR_TYPES.items():
        files[f"tensor_{name}"] = Builder().tensor("t", name, (elements, 2)).build()
    for count in range(1, 5):
        files[f"dimensions_{count}"] = Builder().tensor("t", "F16", (2,) * count).build()
    return files


def split(count: int) -> Builder:
    builder = Builder().key("split.no", "uint16", 0).key("split.count", "uint16", count)
    return builder.key("split.tensors.count", "int32", 1).tensor("t", "F32", (8,))


WORDS = [
    '"GGUF"',
    '"general.alignment"',
    '"general.architecture"',
    '"split.no"',
    '"split.count"',
    '"split.tensors.count"',
    '"\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff"',
    '"\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x7f"',
    '"\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x80"',
    '"\\x00\\x00\\x00\\x00\\x01\\x00\\x00\\x00"',
    '"-00001-of-00003.gguf"',
]


def main(folder: Path, dictionary: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in corpus().items():
        (folder / name).write_bytes(data)
    dictionary.write_text("\n".join(WORDS) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
