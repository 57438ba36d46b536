"""What batch_invariant=True costs: prefill of short and long prompts, a second turn, and decode.

    python benchmarks/batch_invariant.py --device cuda --model Llama-3.2-1B:Q4_K_M [--json FILE]

Each pair of modes is measured in turn in one run; times are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
from origin import origin

import quantloom

PROMPTS = [1, 4, 8, 16, 64, 512, 700]
NEW = 128


def seconds_of(session: quantloom.Session, prompt: list[int], repeat: int) -> float:
    """From the call to the first token, from an empty cache."""
    times = []
    for _ in range(repeat + 1):
        session.reset()
        start = time.perf_counter()
        session.generate(prompt, max_new_tokens=1, ignore_eos=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def measure(model: quantloom.Model, repeat: int) -> dict[str, Any]:
    """Tokens per second of each kind of work."""
    tokens = np.random.default_rng(1).integers(0, model.vocabulary_size, 4096).tolist()
    answer: dict[str, Any] = {"prefill": {}}
    with model.session() as session:
        for length in PROMPTS:
            answer["prefill"][length] = length / seconds_of(session, tokens[:length], repeat)
        rates, turns = [], []
        for _ in range(repeat):
            session.reset()
            first = session.generate(tokens[:512], max_new_tokens=NEW, ignore_eos=True)
            rates.append(first.timings.decode_rate)
            again = [*tokens[:512], *first.tokens, *tokens[600:616]]
            start = time.perf_counter()
            session.generate(again, max_new_tokens=1, ignore_eos=True)
            turns.append(time.perf_counter() - start)
        answer["decode"] = statistics.median(rates)
        answer["second_turn_seconds"] = statistics.median(turns)
    return answer


def main() -> None:
    """Prints a table, and writes JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="Llama-3.2-1B:Q4_K_M")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--commit", help="what was built; by default what git says")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    name, mix = arguments.model.split(":")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        synthetic.write(path, name, mix, context=4096)
        for mode in (False, True):
            with quantloom.load(
                path,
                device=arguments.device,
                context_length=4096,
                threads=arguments.threads,
                batch_invariant=mode,
            ) as model:
                results[mode] = measure(model, arguments.repeat)
    print(f"{arguments.model} on {arguments.device}, tokens/s   off          on       on/off")
    for length in PROMPTS:
        off, on = (results[mode]["prefill"][length] for mode in (False, True))
        print(f"prefill {length:5d}              {off:12,.1f} {on:12,.1f}   {on / off:8.2f}")
    off, on = (results[mode]["decode"] for mode in (False, True))
    print(f"decode                     {off:12,.1f} {on:12,.1f}   {on / off:8.2f}")
    off, on = (1e3 * results[mode]["second_turn_seconds"] for mode in (False, True))
    print(f"second turn, ms            {off:12,.2f} {on:12,.2f}   {on / off:8.2f}")
    if arguments.json:
        report = {
            **origin(arguments.device, arguments.commit),
            "model": arguments.model,
            "repeat": arguments.repeat,
            "threads": arguments.threads,
            "results": {"off": results[False], "on": results[True]},
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
