"""What batch_invariant=True costs: prefill of short and long prompts, a second turn, and decode.

    python benchmarks/batch_invariant.py --device cuda --model Llama-3.2-1B:Q4_K_M [--json FILE]

The modes take turns within each figure, so that a slower machine slows both; times are medians.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
from origin import origin

import quantloom

PROMPTS = [1, 4, 8, 16, 64, 512, 700]
NEW = 128


def in_turn(
    sessions: dict[bool, quantloom.Session],
    work: Callable[[quantloom.Session], tuple[float, ...]],
    repeat: int,
) -> dict[bool, list[float]]:
    """Medians of what `work` finds, from an empty cache; the sessions take turns."""
    found: dict[bool, list[tuple[float, ...]]] = {mode: [] for mode in sessions}
    for _ in range(repeat + 1):
        for mode, session in sessions.items():
            session.reset()
            found[mode].append(work(session))
    # The first turn warms up.
    return {
        mode: [statistics.median(values) for values in zip(*turns[1:], strict=True)]
        for mode, turns in found.items()
    }


def seconds_to_first(session: quantloom.Session, prompt: list[int]) -> float:
    """From the call to the first token."""
    start = time.perf_counter()
    session.generate(prompt, max_new_tokens=1, ignore_eos=True)
    return time.perf_counter() - start


def measure(
    sessions: dict[bool, quantloom.Session], vocabulary: int, repeat: int
) -> dict[bool, dict[str, Any]]:
    """Tokens per second of each kind of work, of each mode."""
    tokens = np.random.default_rng(1).integers(0, vocabulary, 4096).tolist()
    answer: dict[bool, dict[str, Any]] = {mode: {"prefill": {}} for mode in sessions}
    for length in PROMPTS:
        prompt = tokens[:length]
        found = in_turn(sessions, lambda s, p=prompt: (seconds_to_first(s, p),), repeat)
        for mode, (seconds,) in found.items():
            answer[mode]["prefill"][length] = length / seconds

    def decode_and_second_turn(session: quantloom.Session) -> tuple[float, float]:
        first = session.generate(tokens[:512], max_new_tokens=NEW, ignore_eos=True)
        again = [*tokens[:512], *first.tokens, *tokens[600:616]]
        return first.timings.decode_rate, seconds_to_first(session, again)

    for mode, (rate, seconds) in in_turn(sessions, decode_and_second_turn, repeat).items():
        answer[mode] |= {"decode": rate, "second_turn_seconds": seconds}
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
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder) / "model.gguf"
        synthetic.write(path, name, mix, context=4096)
        sessions = {}
        for mode in (False, True):
            model = stack.enter_context(
                quantloom.load(
                    path,
                    device=arguments.device,
                    context_length=4096,
                    threads=arguments.threads,
                    batch_invariant=mode,
                )
            )
            sessions[mode] = stack.enter_context(model.session())
        results = measure(sessions, model.vocabulary_size, arguments.repeat)
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
