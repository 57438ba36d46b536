"""What speculate="ngram" gains on text that repeats itself, and costs elsewhere.

    python benchmarks/speculation.py --json benchmarks/results/speculation.json

The models have the shapes and sizes of real ones and count (benchmarks/synthetic.py), so that a
prompt which counts to 400 and begins anew is text that repeats itself. On random text without a
repetition nothing is drafted. On the CPU, where speculation runs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
from origin import origin

import quantloom

MODELS = ["Qwen3-0.6B:Q8_0", "Llama-3.2-1B:Q4_K_M"]


def measure(path: Path, new_tokens: int, repeat: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    result: dict[str, Any] = {}
    context = 512 + new_tokens
    with quantloom.load(path, device="cpu", context_length=context, check_weights=False) as model:
        tied = "output.weight" not in model.file.tensors
        counting = list(range(1000, 1400)) + list(range(1000, 1010))
        prompts = {"repeating": [77] * 400 if tied else counting}
        if not tied:  # a tied model that counts repeats its last token for ever
            prompts["without repetition"] = random.permutation(model.vocabulary_size)[:400].tolist()
        for name, prompt in prompts.items():
            rates: dict[str, float] = {}
            tokens = []
            for kind in (None, "ngram"):
                runs = [
                    model.generate(
                        prompt, max_new_tokens=new_tokens, ignore_eos=True, speculate=kind
                    )
                    for _ in range(repeat + 1)
                ][1:]
                rates[str(kind)] = float(np.median([run.timings.decode_rate for run in runs]))
                tokens.append(runs[-1].tokens)
                timings = runs[-1].timings
            if tokens[0] != tokens[1]:
                raise SystemExit(f"{path.name}, {name}: other tokens than without speculation")
            gain = rates["ngram"] / rates["None"]
            result[name] = {
                "rate": rates["None"],
                "rate_speculating": rates["ngram"],
                "gain": gain,
                "drafted": timings.drafted_tokens,
                "accepted": timings.accepted_tokens,
            }
            print(
                f"{path.stem:24}{name:20}{rates['None']:10,.1f}{rates['ngram']:10,.1f} tokens/s"
                f"{gain:8.2f} times, {timings.accepted_tokens} of {timings.drafted_tokens} drafts"
                " right, the same tokens",
                flush=True,
            )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, help="NAME:MIX")
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--commit", help="what was built; by default what git says")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        for entry in arguments.models:
            name, mix = entry.split(":")
            path = Path(scratch) / f"{name}-{mix}.gguf"
            synthetic.write(path, name, mix, context=4096, counting=True)
            rows[entry] = measure(path, arguments.new_tokens, arguments.repeat)
            path.unlink()
    if arguments.json:
        result = {**origin("cpu", arguments.commit), "models": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
