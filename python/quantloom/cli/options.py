"""Options that several commands share, and the loading of a model with a progress bar."""

from __future__ import annotations

import base64
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from quantloom import arguments

if TYPE_CHECKING:
    from quantloom.model import Model


def named(text: str) -> Path:
    """`text` as a path; pathlib would take an empty one, such as a variable unset, for ".".

    Raises:
        FileError: no file can have that name.
    """
    return arguments.file_path("file", text)


ModelPath = Annotated[
    Path | None,
    typer.Option("--model", "-m", parser=named, help="GGUF file; default: the bundled model."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
GpuLayers = Annotated[
    int | None,
    typer.Option(help="Layers on the GPU, the CPU has the rest; default: all (auto: that fit)."),
]
Precision = Annotated[str, typer.Option(help="exact or fast (8-bit activations).")]
ContextLength = Annotated[
    int | None, typer.Option(help="Tokens the cache holds; default: the model's own, capped.")
]
CacheType = Annotated[str, typer.Option(help="Type of the KV cache: f16, f32 or q8_0.")]
Pre = Annotated[
    str | None,
    typer.Option(help="Pre-tokenizer, where the file's tokenizer.ggml.pre is missing or wrong."),
]
Threads = Annotated[int | None, typer.Option(help="CPU threads; default: all cores.")]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", "-n", help="Tokens to generate.")]
Temperature = Annotated[float, typer.Option("--temperature", "-t", help="0 is greedy.")]
TopK = Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0: all.")]
TopP = Annotated[float, typer.Option(help="Keep the likeliest tokens of this probability mass.")]
MinP = Annotated[float, typer.Option(help="Drop tokens below this share of the likeliest.")]
RepetitionPenalty = Annotated[float, typer.Option(help="1 is none.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same text.")]
Stop = Annotated[list[str] | None, typer.Option(help="Stop before this text; may be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print one line of strict JSON for machines.")]


def print_json(value: dict[str, Any]) -> None:
    """Write `value` as one line of strict JSON, all ASCII, to standard output.

    What JSON has no form for becomes one that it has: a number that is not finite the string
    "NaN", "Infinity" or "-Infinity", and bytes that are not UTF-8 {"base64": "..."}.
    """
    sys.stdout.write(json.dumps(_strict(value), allow_nan=False) + "\n")
    sys.stdout.flush()


def _strict(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # a file's name, whose bytes Python hides in surrogates
            value = os.fsencode(value)
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode("ascii")}
    return value


@contextmanager
def progress_bar(label: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A function update(done, total) that draws on stderr, or draws nothing when `quiet`."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def load_model(
    path: Path | None,
    *,
    device: str,
    gpu_layers: int | None,
    precision: str,
    context_length: int | None = None,
    cache_type: str = "f16",
    threads: int | None = None,
    pre: str | None = None,
    quiet: bool = False,
) -> Model:
    """`quantloom.load` with a progress bar on stderr."""
    import quantloom

    label = "loading " + (path.name if path is not None else "the bundled model")
    with progress_bar(label, quiet=quiet) as update:
        return quantloom.load(
            path,
            device=device,
            gpu_layers=gpu_layers,
            precision=precision,
            context_length=context_length,
            cache_type=cache_type,
            threads=threads,
            pre=pre,
            progress=update,
            verbose=not quiet,
        )
