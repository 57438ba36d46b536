"""`quantloom bench`: prefill and decode speed of a file on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from quantloom.cli.options import (
    Device,
    Json,
    ModelPath,
    Precision,
    Threads,
    load_model,
    print_json,
)


def bench(
    model: ModelPath = None,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of the prompt.")] = 512,
    new_tokens: Annotated[int, typer.Option(help="Tokens to generate.")] = 128,
    repeat: Annotated[int, typer.Option(help="Runs; the median counts.")] = 5,
    device: Device = "auto",
    precision: Precision = "exact",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure prefill and decode in tokens per second."""
    from quantloom.bench import bench as measure

    with load_model(
        model, device=device, precision=precision, threads=threads, quiet=json
    ) as loaded:
        result = measure(loaded, prompt_tokens=prompt_tokens, new_tokens=new_tokens, repeat=repeat)
        where = str(loaded.device)
    if json:
        print_json({"device": where, "precision": precision, **asdict(result)})
        return
    typer.echo(f"{where}, {precision}, median of {repeat}")
    typer.echo(f"prefill {result.prompt_tokens:6} tokens  {result.prefill:10,.1f} tokens/s")
    typer.echo(f"decode  {result.new_tokens:6} tokens  {result.decode:10,.1f} tokens/s")
    typer.echo(f"first token after {result.time_to_first_token * 1000:,.1f} ms")
