"""Decode and prefill on the CPU, beside llama.cpp where its llama-bench is given.

Writes a file with the shape of a known model and random weights, then measures in turn, so that
other work on the machine falls on both:

    python benchmarks/cpu.py --llama-bench ../llama.cpp/build/bin/llama-bench [--json FILE]

Prefill starts from an empty context and decode after the prompt's tokens, on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import synthetic
from origin import origin


@dataclass(frozen=True)
class Speed:
    """Tokens per second."""

    prefill: float
    decode: float


@dataclass(frozen=True)
class Work:
    """What is measured."""

    path: Path
    threads: int
    prompt_tokens: int
    new_tokens: int


def measure_quantloom(work: Work, precision: str) -> Speed:
    """One run in a process of its own, which starts with the instruction set of the environment."""
    code = (
        "import json, sys, quantloom\n"
        "from quantloom.bench import bench\n"
        "path, precision, threads, prompt, new = sys.argv[1:]\n"
        "with quantloom.load(path, device='cpu', precision=precision, threads=int(threads),\n"
        "                    context_length=int(prompt) + int(new)) as model:\n"
        "    sizes = {'prompt_tokens': int(prompt), 'new_tokens': int(new)}\n"
        "    result = bench(model, **sizes, repeat=1, limits=False)\n"
        "print(json.dumps([result.prefill, result.decode]))\n"
    )
    arguments = [str(work.path), precision, str(work.threads)]
    arguments += [str(work.prompt_tokens), str(work.new_tokens)]
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    prefill, decode = json.loads(run.stdout)
    return Speed(prefill, decode)


def measure_llama(work: Work, program: Path) -> tuple[Speed, str]:
    """One run each of llama-bench, which warms up by itself, and its commit."""

    def run(*tests: str) -> dict[str, Any]:
        command = [str(program), "-m", str(work.path), "-t", str(work.threads)]
        command += [*tests, "-r", "1", "-o", "json"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        (entry,) = json.loads(done.stdout)
        return dict(entry)

    prompt, new = str(work.prompt_tokens), str(work.new_tokens)
    prefill = run("-p", prompt, "-n", "0")
    decode = run("-p", "0", "-n", new, "-d", prompt)
    return Speed(prefill["avg_ts"], decode["avg_ts"]), str(decode["build_commit"])


def median(speeds: Sequence[Speed]) -> Speed:
    """Median of each figure."""
    return Speed(
        statistics.median(speed.prefill for speed in speeds),
        statistics.median(speed.decode for speed in speeds),
    )


def report(results: dict[str, Speed], size: int) -> None:
    """Print a table with ratios to llama.cpp."""
    base = results.get("llama.cpp")
    print(f"{'':12}{'prefill t/s':>12}{'decode t/s':>12}{'decode GB/s':>12}", end="")
    print(f"{'prefill ratio':>15}{'decode ratio':>14}" if base else "")
    for name, speed in results.items():
        bandwidth = speed.decode * size / 1e9
        print(f"{name:12}{speed.prefill:12.1f}{speed.decode:12.2f}{bandwidth:12.1f}", end="")
        if base:
            print(f"{speed.prefill / base.prefill:15.2f}{speed.decode / base.decode:14.2f}", end="")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-bench", type=Path, help="llama.cpp's benchmark program")
    parser.add_argument("--model", choices=synthetic.SHAPES, default="Llama-3.2-1B")
    parser.add_argument("--mix", choices=synthetic.FILE_TYPES, default="Q4_K_M")
    parser.add_argument("--file", type=Path, help="a file to use instead of a written one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--instruction-set", default="auto", help="as of QUANTLOOM_CPU")
    parser.add_argument("--commit", help="what was built; by default what git says")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ["QUANTLOOM_CPU"] = arguments.instruction_set

    llama_commit = None
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or synthetic.write(
            Path(folder) / "model.gguf", arguments.model, arguments.mix
        )
        work = Work(path, arguments.threads, arguments.prompt_tokens, arguments.new_tokens)
        runs: dict[str, list[Speed]] = {}
        for _ in range(arguments.repeat):
            if arguments.llama_bench:
                speed, llama_commit = measure_llama(work, arguments.llama_bench)
                runs.setdefault("llama.cpp", []).append(speed)
            for precision in ("fast", "exact"):
                runs.setdefault(precision, []).append(measure_quantloom(work, precision))
        size = path.stat().st_size
    results = {name: median(speeds) for name, speeds in runs.items()}
    report(results, size)
    if arguments.json:
        made = f"{arguments.model}:{arguments.mix}"
        found = {
            **origin("cpu", arguments.commit),
            "llama_commit": llama_commit,
            "model": arguments.file.name if arguments.file else made,
            "file_bytes": size,
            "threads": arguments.threads,
            "prompt_tokens": arguments.prompt_tokens,
            "new_tokens": arguments.new_tokens,
            "repeat": arguments.repeat,
            "instruction_set": arguments.instruction_set,
            "results": {name: asdict(speed) for name, speed in results.items()},
        }
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
