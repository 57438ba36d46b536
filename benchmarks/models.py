"""Load time, memory, prefill and decode of models of well-known shapes with random weights.

    python benchmarks/models.py                              # on a GPU, all of them
    python benchmarks/models.py --models Llama-3.1-8B:Q8_0 --quick
    python benchmarks/models.py --json benchmarks/results/model.json

Each figure stands beside its limit, measured in the same run: for decode the bytes that a token
reads (weights, and the cache where it is long) over the read bandwidth, for prefill the rate of
bfloat16 cuBLAS on the model's own shapes, attention's operations counted. A load is with the check
of the weights, load()'s default, from a file that the system holds in memory; the table's "memory"
is what the GPU holds over the bytes of the weights.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
from origin import device_name, origin

import quantloom
from quantloom import cuda
from quantloom.bench import bench, measure_limits, read_per_token
from quantloom.ceilings import product_seconds, read_bandwidth

MODELS = [
    "Llama-3.1-8B:Q4_K_M",
    "Llama-3.1-8B:Q8_0",
    "Llama-3.1-8B:Q4_0",
    "Llama-3.1-8B:Q5_K_M",
    "Llama-3.1-8B:Q6_K",
    "Llama-3.1-8B:IQ4_XS",
    "Llama-3.1-8B:IQ3_S",
    "Llama-3.1-8B:IQ2_XXS",
    "Qwen3-8B:Q4_K_M",
    "Qwen2.5-3B:Q4_K_M",
    "Llama-3.2-1B:Q4_K_M",
    "Llama-3.2-1B:IQ4_XS",
    "Qwen3-0.6B:Q8_0",
]
PROMPTS = (512, 2048, 8192)
LONG = 32768
NEW_TOKENS = 128
NEW_TOKENS_LONG = 64


def known(entry: str) -> str:
    """An entry of --models, where there is such a shape and mix."""
    name, _, mix = entry.partition(":")
    if name not in synthetic.SHAPES or mix not in synthetic.FILE_TYPES:
        raise argparse.ArgumentTypeError(
            f"{entry!r} is no NAME:MIX of {', '.join(synthetic.SHAPES)} and "
            f"{', '.join(synthetic.FILE_TYPES)}"
        )
    return entry


_timed: dict[tuple[str, int, tuple[int, int]], float] = {}


def products(
    device: str, shapes: Iterable[tuple[int, int]], tokens: int
) -> tuple[dict[tuple[int, int], float], str]:
    """As product_seconds, each shape once in a run: models share them."""
    wanted = set(shapes)
    missing = {shape for shape in wanted if (device, tokens, shape) not in _timed}
    found, by = product_seconds(device, missing, tokens)
    _timed.update({(device, tokens, shape): seconds for shape, seconds in found.items()})
    return {shape: _timed[device, tokens, shape] for shape in wanted}, by


def load_times(path: Path, device: str) -> dict[str, Any]:
    on_gpu = device != "cpu"
    seconds, held = [], 0
    for check_weights in (True, False, False):
        gc.collect()
        before = cuda.memory().in_use if on_gpu else 0
        start = time.perf_counter()
        with quantloom.load(path, device=device, check_weights=check_weights) as model:
            seconds.append(time.perf_counter() - start)
            held = cuda.memory().in_use - before if on_gpu else 0
            weights = model.weight_bytes
    return {
        "file_bytes": path.stat().st_size,
        "device_bytes": held,
        "weights_of_file": held / weights if on_gpu else None,
        "load_seconds": min(seconds[1:]),
        "load_seconds_with_check": seconds[0],
    }


def prefill(
    model: quantloom.Model, tokens: int, repeat: int, bandwidth: float, limits: bool
) -> dict[str, Any]:
    """Prompt tokens per second in the usual passes and in one, and what they could be."""
    row: dict[str, Any] = {}
    sizes = {"prompt_tokens": tokens, "new_tokens": 2, "repeat": repeat, "limits": False}
    row["rate"] = bench(model, **sizes).prefill
    if tokens > 512:
        row["rate_in_one_pass"] = bench(model, **sizes, prefill_chunk=tokens).prefill
        row["cost_of_passes"] = row["rate_in_one_pass"] / row["rate"] - 1
    if limits:
        found = measure_limits(model, tokens, 2, bandwidth, products)
        row["limit"], row["product_rate"] = found.prefill, found.product_rate
        row["share"] = row["rate"] / found.prefill if found.prefill else None
    return row


def decode(
    model: quantloom.Model, prompt_tokens: int, repeat: int, bandwidth: float
) -> dict[str, Any]:
    """New tokens per second after a short prompt, as the caller sees them."""
    result = bench(
        model, prompt_tokens=prompt_tokens, new_tokens=NEW_TOKENS, repeat=repeat, limits=False
    )
    limit = bandwidth / read_per_token(model)
    return {
        "rate": result.decode,
        "limit": limit,
        "share": result.decode / limit,
        "gap_p50": result.gap_p50,
        "gap_p99": result.gap_p99,
        "thread_busy": result.thread_busy,
        "time_to_first_token": result.time_to_first_token,
    }


def decode_long(model: quantloom.Model, position: int, bandwidth: float) -> dict[str, Any]:
    """New tokens per second after `position` tokens, the cache's bytes in the limit."""
    random = np.random.default_rng(1)
    prompt = random.integers(0, model.vocabulary_size, position).tolist()
    rates = []
    with model.session() as session:
        for _ in range(3):  # after the first, the cache holds the prompt
            timings = session.generate(
                prompt, max_new_tokens=NEW_TOKENS_LONG, ignore_eos=True
            ).timings
            rates.append(timings.decode_rate)
    cache = model.cache_bytes * (position + NEW_TOKENS_LONG // 2) // model.context_length
    limit = bandwidth / (read_per_token(model) + cache)
    rate = statistics.median(rates)
    return {"position": position, "rate": rate, "limit": limit, "share": rate / limit}


def measure(path: Path, arguments: argparse.Namespace, bandwidth: float) -> dict[str, Any]:
    device, repeat = arguments.device, arguments.repeat
    result = load_times(path, device)
    long = 0 if arguments.quick else arguments.long
    prompts = PROMPTS[:1] if arguments.quick else PROMPTS[: arguments.prompts]
    context = max(*prompts, 512, long) + NEW_TOKENS
    with quantloom.load(path, device=device, context_length=context, check_weights=False) as model:
        result["read_bytes"] = read_per_token(model)
        result["decode_512"] = decode(model, 512, repeat, bandwidth)
        result["prefill"] = {
            str(tokens): prefill(
                model, tokens, min(repeat, 3), bandwidth, not arguments.no_products
            )
            for tokens in prompts
        }
        if long:
            result[f"decode_{long}"] = decode_long(model, long, bandwidth)
    if long:
        with quantloom.load(
            path,
            device=device,
            context_length=context,
            cache_type="q8_0",
            check_weights=False,
        ) as model:
            result[f"decode_{long}_q8_0"] = decode_long(model, long, bandwidth)
    return result


def shown(entry: dict[str, Any] | None) -> str:
    """Rate and share."""
    if entry is None:
        return ""
    share = f" {entry['share']:.2f}" if entry.get("share") is not None else ""
    return f"{entry['rate']:,.0f}{share}"


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line says, or `words` in its place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", type=known, default=MODELS, help="NAME:MIX")
    parser.add_argument("--device", default="cuda" if cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, help="where the files are written and kept")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--long", type=int, default=LONG, help="also decode after so many tokens")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help=f"how many of {PROMPTS}")
    parser.add_argument("--quick", action="store_true", help="prompts of 512 tokens only")
    parser.add_argument("--no-products", action="store_true", help="no limits of prefill")
    parser.add_argument("--commit", help="what was built; by default what git says")
    parser.add_argument("--json", type=Path, help="models measured before are kept")
    return parser.parse_args(words)


def file_of(entry: str, folder: Path, long: int = LONG) -> Path:
    """The file of an entry of --models, written where it is not there yet."""
    name, mix = entry.split(":")
    path = folder / f"{name}-{mix}.gguf"
    if not path.exists():
        synthetic.write(path, name, mix, context=max(16384, long + 1024))
    return path


def print_head(long: int) -> None:
    head = (
        "model",
        "load s",
        "memory",
        "decode 512",
        *map(str, PROMPTS),
        f"decode {long}",
        "Q8_0 cache",
        "first ms",
        "p99/p50",
    )
    print(("{:22}" + "{:>8}" * 2 + "{:>14}" * 6 + "{:>10}" * 2).format(*head))


def print_row(entry: str, row: dict[str, Any], long: int) -> None:
    memory = f"{row['weights_of_file']:.3f}" if row["weights_of_file"] is not None else ""
    rates = [shown(row["decode_512"]), *(shown(row["prefill"].get(str(n))) for n in PROMPTS)]
    rates += [shown(row.get(f"decode_{long}{cache}")) for cache in ("", "_q8_0")]
    first = 1000 * row["decode_512"]["time_to_first_token"]
    uneven = row["decode_512"]["gap_p99"] / row["decode_512"]["gap_p50"]
    print(
        f"{entry:22}{row['load_seconds_with_check']:8.2f}{memory:>8}"
        + "".join(f"{rate:>14}" for rate in rates)
        + f"{first:10.1f}{uneven:10.2f}",
        flush=True,
    )


def measure_all(
    arguments: argparse.Namespace, bandwidth: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each entry of --models and its figures, which are printed too."""
    found = origin(arguments.device, arguments.commit)
    print_head(arguments.long)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for entry in arguments.models:
            path = file_of(entry, folder, arguments.long)
            row = measure(path, arguments, bandwidth)
            row |= found
            row["read_bandwidth"] = bandwidth
            print_row(entry, row, arguments.long)
            if not arguments.folder:
                path.unlink()
            yield entry, row


def main() -> None:
    arguments = options_of()
    kept: dict[str, Any] = {}
    name = device_name(arguments.device)
    if arguments.json and arguments.json.exists():
        before = json.loads(arguments.json.read_text())
        if before["device"] != name:
            raise SystemExit(f"{arguments.json} holds figures of {before['device']}, not of {name}")
        kept = before["models"]
    bandwidth = read_bandwidth(arguments.device)
    print(f"reading memory: {bandwidth / 1e9:,.0f} GB/s; rates in tokens/s with shares of limits")
    for entry, row in measure_all(arguments, bandwidth):
        kept[entry] = row
        if arguments.json:
            result = {"device": name, "models": kept}
            arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
