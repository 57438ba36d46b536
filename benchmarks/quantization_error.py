"""Root mean square error of every format that quantloom writes, and its ratio to llama.cpp's.

    python benchmarks/quantization_error.py [--library libggml-base.so] [--model FILE.gguf]

The library is llama.cpp's own, built apart from this project; without it the ratios are left out.
Data: seeded random weights of four kinds and, with --model, the matrices of a GGUF file.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from origin import origin

import quantloom
from quantloom.formats import FORMATS
from quantloom.quantization import dequantize, quantize

ROWS, COLUMNS = 256, 4096
SEED = 20261121


def random_data() -> dict[str, NDArray[np.float32]]:
    """Gaussian, heavy-tailed (Student t with 3 degrees), Laplace, and Gaussian with row and column
    scales that vary as those of trained matrices do."""
    random = np.random.default_rng(SEED)
    shape = (ROWS, COLUMNS)
    scales = np.exp(0.5 * random.standard_normal((ROWS, 1)))
    scales = scales * np.exp(0.5 * random.standard_normal((1, COLUMNS)))
    data = {
        "gaussian": random.standard_normal(shape),
        "heavy-tailed": random.standard_t(3, shape),
        "laplace": random.laplace(size=shape),
        "row scales": 0.02 * scales * random.standard_normal(shape),
    }
    return {name: values.astype(np.float32) for name, values in data.items()}


def real_data(path: Path) -> NDArray[np.float32]:
    """All two-dimensional tensors of a file, end to end, in rows of 256."""
    with quantloom.open(path) as file:
        parts = [
            np.asarray(tensor.dequantize()).reshape(-1)
            for tensor in file.tensors.values()
            if len(tensor.shape) == 2
        ]
    flat = np.concatenate(parts)
    return flat[: flat.size // 256 * 256].reshape(-1, 256).astype(np.float32)


class Baseline:
    """llama.cpp's quantizer, by way of ctypes."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self._chunk = self._library.ggml_quantize_chunk
        self._chunk.restype = ctypes.c_size_t
        self._chunk.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
        names = []
        for function in (self._library.ggml_version, self._library.ggml_commit):
            function.restype = ctypes.c_char_p
            names.append(function().decode())
        self.version = " ".join(names)

    def quantize(self, values: NDArray[np.float32], name: str) -> NDArray[np.uint8]:
        kind = FORMATS[name]
        blocks = np.empty((len(values), kind.row_bytes(values.shape[1])), np.uint8)
        rows, columns = values.shape
        written = self._chunk(
            kind.id, values.ctypes.data, blocks.ctypes.data, 0, rows, columns, None
        )
        if written != blocks.nbytes:
            raise RuntimeError(f"{name}: {written} bytes, not {blocks.nbytes}")
        return blocks


def error(values: NDArray[np.float32], blocks: NDArray[np.uint8], name: str) -> float:
    """Root mean square error over the root mean square of the values."""
    difference = dequantize(blocks, name).astype(np.float64) - values
    return float(np.sqrt(np.mean(difference**2) / np.mean(values.astype(np.float64) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--library", type=Path, help="llama.cpp's libggml-base.so")
    parser.add_argument("--model", type=Path, help="GGUF file with real matrices")
    parser.add_argument("--no-times", action="store_true", help="on a machine with other work")
    parser.add_argument("--commit", help="what was built; by default what git says")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    baseline = Baseline(options.library) if options.library else None
    data = random_data()
    if options.model:
        data["real"] = real_data(options.model)

    rows = []
    time_shown = ""
    print("relative error, and in brackets its ratio to llama.cpp's; ns per weight on one thread")
    print(
        f"{'format':8}"
        + "".join(f"{name:>20}" for name in data)
        + ("" if options.no_times else f"{'ns':>8}")
    )
    for name, kind in FORMATS.items():
        if not kind.encodable or name == "F32":
            continue
        row: dict[str, object] = {"format": name}
        line = f"{name:8}"
        for label, values in data.items():
            start = time.perf_counter()
            blocks = quantize(values, name, threads=1)
            seconds = time.perf_counter() - start
            ours = error(values, blocks, name)
            row[label] = {"error": ours}
            cell = f"{ours:.5f}"
            if baseline:
                theirs = error(values, baseline.quantize(values, name), name)
                row[label] = {"error": ours, "llama.cpp": theirs, "ratio": ours / theirs}
                cell += f" ({ours / theirs:.4f})"
            line += f"{cell:>20}"
            if label == "gaussian" and not options.no_times:
                row["ns_per_weight"] = seconds / values.size * 1e9
                time_shown = f"{row['ns_per_weight']:8.0f}"
        print(line + time_shown, flush=True)
        rows.append(row)
    if options.json:
        report = {
            **origin("cpu", options.commit),
            "ggml": baseline.version if baseline else None,
            "shape": [ROWS, COLUMNS],
            "seed": SEED,
            "formats": rows,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
