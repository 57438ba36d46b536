"""Load time, memory, prefill and decode of models of well-known shapes with random weights.

    python benchmarks/model.py                             # on a GPU, the models of the README
    python benchmarks/model.py --models Llama-3.1-8B:Q8_0 --json benchmarks/results/model.json

The limit of decode is the read bandwidth, measured by a copy inside the GPU, over the bytes of the
weights that a token reads: all tensors but an embedding table that is not the head too.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import synthetic

import quantloom
from quantloom import cuda
from quantloom.bench import bench

MODELS = ["Llama-3.2-1B:Q4_K_M", "Llama-3.1-8B:Q4_K_M", "Qwen2.5-3B:Q4_K_M", "Qwen3-8B:Q4_K_M"]
COPIES = 20


def copy_bandwidth() -> float:
    """Bytes read and written per second by copies of 4 GiB inside the GPU."""
    tensor = quantloom.Tensor.empty((1 << 30,), device="cuda")
    times = []
    for _ in range(COPIES):
        cuda.synchronize()
        start = time.perf_counter()
        copied = tensor.clone()
        cuda.synchronize()
        times.append(time.perf_counter() - start)
        del copied
    return 2 * tensor.nbytes / statistics.median(times)


def read_bytes(model: quantloom.Model) -> int:
    """Bytes of weights that one token reads."""
    tensors = model.file.tensors
    tied = "output.weight" not in tensors
    return sum(t.nbytes for name, t in tensors.items() if tied or name != "token_embd.weight")


def measure(path: Path, device: str, repeat: int, long: int) -> dict[str, Any]:
    on_gpu = device != "cpu"
    loads, held = [], 0
    for check_weights in (True, False, False, False):
        gc.collect()
        before = cuda.memory().in_use if on_gpu else 0
        start = time.perf_counter()
        model = quantloom.load(path, device=device, check_weights=check_weights)
        loads.append(time.perf_counter() - start)
        held = cuda.memory().in_use - before if on_gpu else 0
        model.close()
    context = max(2048 + 8, long + 64)
    with quantloom.load(path, device=device, context_length=context) as model:
        short = bench(model, prompt_tokens=512, new_tokens=128, repeat=repeat)
        result = {
            "file_bytes": path.stat().st_size,
            "device_bytes": held,
            "weights_of_file": held / model.weight_bytes if on_gpu else None,
            "load_seconds": statistics.median(loads[1:]),
            "load_seconds_with_check": loads[0],
            "prefill_512": short.prefill,
            "prefill_2048": bench(model, prompt_tokens=2048, new_tokens=2, repeat=repeat).prefill,
            "decode": short.decode,
            "read_bytes": read_bytes(model),
        }
        if long:
            result[f"decode_at_{long}"] = decode_at(model, long)
    return result


def decode_at(model: quantloom.Model, position: int) -> float:
    """New tokens per second after `position` tokens."""
    random = np.random.default_rng(1)
    prompt = random.integers(0, model.vocabulary_size, position).tolist()
    with model.session() as session:
        timings = session.generate(prompt, max_new_tokens=48, ignore_eos=True).timings
    return (timings.new_tokens - 1) / timings.decode_seconds


def commit() -> str:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, help="NAME:MIX")
    parser.add_argument("--device", default="cuda" if cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, help="where the files are written and kept")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--long", type=int, default=0, help="also decode after so many tokens")
    parser.add_argument("--commit", help="what was built; by default what git says")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    on_gpu = arguments.device != "cpu"
    ceilings = {"copy_bandwidth": copy_bandwidth()} if on_gpu else {}
    if on_gpu:
        print(f"copy inside the GPU: {ceilings['copy_bandwidth'] / 1e9:,.0f} GB/s")
    rows: dict[str, dict[str, Any]] = {}
    head = ("model", "GB", "load s", "memory", "prefill 512", "2048", "decode", "of limit")
    print(("{:24}" + "{:>12}" * 7).format(*head))
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        for entry in arguments.models:
            name, mix = entry.split(":")
            path = folder / f"{name}-{mix}.gguf"
            if not path.exists():
                synthetic.write(path, name, mix, context=max(4096, arguments.long + 64))
            row = measure(path, arguments.device, arguments.repeat, arguments.long)
            if on_gpu:
                row["decode_limit"] = ceilings["copy_bandwidth"] / row["read_bytes"]
            share = f"{row['decode'] / row['decode_limit']:.2f}" if on_gpu else ""
            memory = f"{row['weights_of_file']:.3f}" if on_gpu else ""
            print(
                f"{entry:24}{row['file_bytes'] / 1e9:12.2f}{row['load_seconds']:12.2f}{memory:>12}"
                f"{row['prefill_512']:12,.0f}{row['prefill_2048']:12,.0f}{row['decode']:12,.0f}"
                f"{share:>12}",
                flush=True,
            )
            rows[entry] = row
            if not arguments.folder:
                path.unlink()
    if arguments.json:
        result = {
            "date": datetime.date.today().isoformat(),
            "commit": arguments.commit or commit(),
            "device": cuda.devices()[0].name if on_gpu else platform.processor(),
            "ceilings": ceilings,
            "models": rows,
        }
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
