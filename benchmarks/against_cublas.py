"""Products of many tokens beside bfloat16 cuBLAS, in turn and for as long, on the same shapes.

    python benchmarks/against_cublas.py [--tokens 512 2048] [--formats Q4_K Q8_0]
                                        [--dtypes bfloat16 float32] [--json FILE]

A GPU at work for tenths of a second runs into its power limit and slows down, which a product timed
alone for a millisecond does not: so each side runs for `--seconds` before the other has its turn,
and a figure is the median over the turns. cuBLAS reads and writes bfloat16, ours that and float32.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import synthetic
from origin import origin

import quantloom
from quantloom import Tensor, _quantloom
from quantloom.ceilings import Cublas

DEVICE = "cuda"
SHAPES = [(28672, 4096), (14336, 4096), (4096, 14336), (4096, 4096)]


def ours(name: str, shape: tuple[int, int], tokens: int, dtype: str) -> Callable[[], None]:
    """Starts a product with weights of a format, enough of them to fill the cache twice."""
    rows, columns = shape
    format = synthetic.FORMATS[name]
    pool = format.make(np.random.default_rng(1), synthetic.POOL_BYTES // format.bytes - 1)
    blocks = np.resize(pool.reshape(-1), rows * columns // format.elements * format.bytes)
    first = Tensor.from_blocks(blocks, name, shape, DEVICE)
    count = max(1, -(-(128 << 20) // first.nbytes))
    weights = [first.clone().pack() for _ in range(count)]
    x = Tensor(
        np.random.default_rng(2).standard_normal((tokens, columns), np.float32), device=DEVICE
    ).dequantize(dtype)
    out = Tensor.empty((tokens, rows), dtype, DEVICE)
    turn = iter(range(1 << 30))

    def start() -> None:
        quantloom.matmul(x, weights[next(turn) % count], out=out)

    return start


def seconds_in_turn(calls: list[Callable[[], None]], seconds: float, turns: int = 3) -> list[float]:
    """Of one of each call, the calls by the same clock."""
    found: list[list[float]] = [[] for _ in calls]
    for turn in range(turns + 1):
        for times, call in zip(found, calls, strict=True):
            count, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                for _ in range(20):
                    call()
                _quantloom.cuda_synchronize(DEVICE)
                count += 20
            if turn > 0:  # the first warms up
                times.append((time.perf_counter() - start) / count)
    return [statistics.median(times) for times in found]


def main() -> None:
    """Prints a table, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--formats", nargs="+", default=["Q4_K", "Q8_0"])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--seconds", type=float, default=0.25, help="of a side's turn")
    parser.add_argument("--commit", help="what was built; by default what git says")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    with Cublas(DEVICE) as cublas:
        for shape in SHAPES:
            for tokens in arguments.tokens:
                calls = [cublas.product(shape, tokens)]
                kinds = list(itertools.product(arguments.formats, arguments.dtypes))
                calls += [ours(name, shape, tokens, dtype) for name, dtype in kinds]
                first, *times = seconds_in_turn(calls, arguments.seconds)
                for (name, dtype), own in zip(kinds, times, strict=True):
                    rows.append(
                        {"format": name, "dtype": dtype, "rows": shape[0], "columns": shape[1],
                         "tokens": tokens, "us": own * 1e6, "cublas_us": first * 1e6,
                         "share": first / own}
                    )  # fmt: skip
                    print(
                        f"{name} {shape[0]} x {shape[1]}, {tokens} tokens in {dtype}: "
                        f"{own * 1e6:.1f} us, cuBLAS {first * 1e6:.1f} us, "
                        f"{first / own:.2f} of its rate",
                        flush=True,
                    )
    if arguments.json:
        report = {
            **origin(DEVICE, arguments.commit),
            "products": rows,
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
