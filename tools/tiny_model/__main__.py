"""Command line: `PYTHONPATH=tools python -m tiny_model train|export|record|sample`."""

from __future__ import annotations

import argparse
import itertools
import json
import os
from pathlib import Path

from . import corpus


def _train(arguments: argparse.Namespace) -> None:
    import torch

    from . import train

    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    record = train.run(
        arguments.out,
        steps=arguments.steps,
        rows=arguments.rows,
        seed=arguments.seed,
        device=device,
        workers=arguments.workers,
        evaluated=not arguments.skip_evaluation,
    )
    print(json.dumps(record.get("evaluation"), indent=1))


def _export(arguments: argparse.Namespace) -> None:
    from . import export

    export.write(arguments.checkpoint, arguments.output)


def _record(arguments: argparse.Namespace) -> None:
    from . import record

    record.write(arguments.checkpoint, arguments.model, arguments.output)


def _sample(arguments: argparse.Namespace) -> None:
    for text in itertools.islice(corpus.documents(arguments.seed), arguments.count):
        print(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tiny_model", description=__doc__)
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train and write a checkpoint folder")
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--steps", type=int, default=6000)
    train.add_argument("--rows", type=int, default=64, help="sequences in a step")
    train.add_argument("--seed", type=int, default=1)
    train.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    train.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    train.add_argument("--skip-evaluation", action="store_true")
    train.set_defaults(run=_train)
    export = commands.add_parser("export", help="write a checkpoint as a float32 GGUF file")
    export.add_argument("--checkpoint", type=Path, required=True)
    export.add_argument("--output", type=Path, required=True)
    export.set_defaults(run=_export)
    record = commands.add_parser("record", help="write down a run's figures for the shipped file")
    record.add_argument("--checkpoint", type=Path, required=True)
    record.add_argument("--model", type=Path, required=True, help="the Q4_K_M file")
    record.add_argument("--output", type=Path, required=True)
    record.set_defaults(run=_record)
    sample = commands.add_parser("sample", help="print generated training documents")
    sample.add_argument("--count", type=int, default=20)
    sample.add_argument("--seed", type=int, default=1)
    sample.set_defaults(run=_sample)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
