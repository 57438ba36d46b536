"""`quantloom generate`: continue a prompt, or answer it where the model has a chat template."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from quantloom.cli.options import (
    CacheType,
    ContextLength,
    Device,
    GpuLayers,
    Json,
    MaxNewTokens,
    MinP,
    ModelPath,
    Pre,
    Precision,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    Threads,
    TopK,
    TopP,
    load_model,
    print_json,
)
from quantloom.cli.streams import read_text


def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads standard input.")],
    model: ModelPath = None,
    max_new_tokens: MaxNewTokens = 256,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    stop: Stop = None,
    chat: Annotated[
        bool, typer.Option(help="Put the prompt in the model's chat template as a question.")
    ] = False,
    device: Device = "auto",
    gpu_layers: GpuLayers = None,
    precision: Precision = "exact",
    context_length: ContextLength = None,
    cache_type: CacheType = "f16",
    threads: Threads = None,
    pre: Pre = None,
    json: Json = False,
) -> None:
    """Generate text from a prompt and stream it to standard output."""
    text = read_text() if prompt == "-" else prompt
    with load_model(
        model,
        device=device,
        gpu_layers=gpu_layers,
        precision=precision,
        context_length=context_length,
        cache_type=cache_type,
        threads=threads,
        pre=pre,
        quiet=json,
    ) as loaded:
        with loaded.stream(
            [{"role": "user", "content": text}] if chat else text,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stop=stop or [],
        ) as stream:
            for piece in stream:
                if not json:
                    sys.stdout.write(piece.text)
                    sys.stdout.flush()
            result = stream.result
        device, gpu_layers, placed = loaded.device, loaded.gpu_layers, loaded._placed
    timings = result.timings
    if json:
        print_json(
            {
                "text": result.text,
                "tokens": list(result.tokens),
                "finish_reason": result.finish_reason,
                "device": device,
                "gpu_layers": gpu_layers,
                "seed": result.seed,
                "timings": asdict(timings),
            }
        )
        return
    sys.stdout.write("\n")
    sys.stdout.flush()
    print(
        f"{len(result.tokens)} tokens {placed}: {timings.decode_rate:,.1f} tokens/s, "
        f"prompt {timings.prefill_rate:,.1f} tokens/s, finish_reason {result.finish_reason}",
        file=sys.stderr,
    )
