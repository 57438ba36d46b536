"""`quantloom perplexity`: how well a model predicts a text."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from quantloom.cli.options import (
    Device,
    GpuLayers,
    Json,
    ModelPath,
    Pre,
    Precision,
    Threads,
    load_model,
    named,
    print_json,
    progress_bar,
)
from quantloom.errors import FileError


def perplexity(
    text: Annotated[Path, typer.Argument(parser=named, help="UTF-8 text file.")],
    model: ModelPath = None,
    context: Annotated[int, typer.Option(help="Tokens per window.")] = 512,
    windows: Annotated[int | None, typer.Option(help="Read at most so many windows.")] = None,
    device: Device = "auto",
    gpu_layers: GpuLayers = None,
    precision: Precision = "exact",
    threads: Threads = None,
    pre: Pre = None,
    json: Json = False,
) -> None:
    """Print the perplexity of a model on a text file."""
    from quantloom.perplexity import perplexity as measure

    try:
        content = text.read_bytes().decode()  # as bytes: read_text would make "\n" of "\r\n"
    except OSError as error:
        raise FileError.of("read", text, error) from error
    except UnicodeDecodeError as error:
        raise FileError(f"cannot read {text}: {error}", subject=str(text)) from error
    with load_model(
        model,
        device=device,
        gpu_layers=gpu_layers,
        precision=precision,
        threads=threads,
        pre=pre,
        quiet=json,
    ) as loaded:
        with progress_bar("perplexity", quiet=json) as update:
            result = measure(loaded, content, context=context, max_windows=windows, progress=update)
    if json:
        print_json(asdict(result))
        return
    typer.echo(
        f"perplexity {result.perplexity:.4f} +- {result.standard_error:.4f} "
        f"({result.tokens} tokens scored in {result.windows} windows of {result.context})"
    )
