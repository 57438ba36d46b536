"""`quantloom bench`: speed of a file on this machine, beside what the machine allows."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantloom.cli.options import (
    CacheType,
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
)
from quantloom.errors import InvalidArgument

if TYPE_CHECKING:
    from quantloom.bench import BenchResult


def bench(
    file: Annotated[
        Path | None, typer.Argument(parser=named, help="GGUF file, as with --model.")
    ] = None,
    model: ModelPath = None,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of the prompt.")] = 512,
    new_tokens: Annotated[int, typer.Option(help="Tokens to generate.")] = 128,
    repeat: Annotated[int, typer.Option(help="Runs; the median counts.")] = 5,
    device: Device = "auto",
    gpu_layers: GpuLayers = None,
    precision: Precision = "exact",
    cache_type: CacheType = "f16",
    threads: Threads = None,
    pre: Pre = None,
    json: Json = False,
    picture: Annotated[
        Path | None,
        typer.Option(parser=named, help="Draw where the time goes: a .png or .svg file."),
    ] = None,
) -> None:
    """Measure prefill and decode, each with the limit that this machine sets it."""
    from quantloom.bench import bench as measure
    from quantloom.bench_picture import check, draw

    if file is not None and model is not None:
        raise InvalidArgument(
            f"two files to measure, {file} and --model {model}; give one", subject="model"
        )
    if picture is not None:
        check(picture)
    start = time.perf_counter()
    with load_model(
        file or model,
        device=device,
        gpu_layers=gpu_layers,
        precision=precision,
        context_length=None,
        cache_type=cache_type,
        threads=threads,
        pre=pre,
        quiet=json,
    ) as loaded:
        load_seconds = time.perf_counter() - start
        result = measure(loaded, prompt_tokens=prompt_tokens, new_tokens=new_tokens, repeat=repeat)
        device, gpu_layers, name = loaded.device, loaded.gpu_layers, loaded.path.name
        heading = f"{name} {loaded._placed}, {precision}"
    if json:
        figures = asdict(result)
        del figures["gaps"]
        figures["decode_share"], figures["prefill_share"] = (
            result.decode_share,
            result.prefill_share,
        )
        print_json(
            {
                "file": name,
                "device": device,
                "gpu_layers": gpu_layers,
                "precision": precision,
                "load_seconds": load_seconds,
                **figures,
            }
        )
    else:
        typer.echo(f"{heading}, median of {repeat}")
        _print(result, load_seconds)
    if picture is not None:
        draw(result, picture, heading)


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _print(result: BenchResult, load_seconds: float) -> None:
    limits = result.limits
    assert limits is not None
    share = f"{result.decode_share:4.2f} of {limits.decode:,.0f}: " + (
        f"{_bytes(limits.weight_bytes)} of weights and {_bytes(limits.cache_bytes)} of cache at "
        f"{limits.read_bandwidth / 1e9:,.0f} GB/s"
    )
    typer.echo(f"decode  {result.new_tokens:6} tokens  {result.decode:10,.1f} tokens/s  {share}")
    if limits.prefill is None:
        share = f"no limit: {limits.product}"
    else:
        rate = (limits.product_rate or 0) / 1e12
        share = f"{result.prefill_share:4.2f} of {limits.prefill:,.0f}: {limits.product} at "
        share += f"{rate:,.1f} Tflop/s"
    typer.echo(
        f"prefill {result.prompt_tokens:6} tokens  {result.prefill:10,.1f} tokens/s  {share}"
    )
    typer.echo(f"first token after {1000 * result.time_to_first_token:,.1f} ms")
    typer.echo(
        f"between tokens: half within {1000 * result.gap_p50:,.2f} ms, 99 in 100 within "
        f"{1000 * result.gap_p99:,.2f} ms; the caller's thread busy {result.thread_busy:.0%}"
    )
    typer.echo(f"loaded in {load_seconds:.2f} s; {_bytes(result.memory_bytes)} in use")
