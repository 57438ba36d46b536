"""`quantloom chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

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
    Temperature,
    Threads,
    TopK,
    TopP,
    load_model,
    print_json,
)
from quantloom.cli.streams import read_line, read_text
from quantloom.errors import ContextFull, InvalidArgument

if TYPE_CHECKING:
    from quantloom.session import Session

HELP = "/reset forgets the conversation, /quit (or Ctrl-D) ends it, Ctrl-C stops an answer"


def answer(
    session: Session, messages: list[dict[str, str]], options: dict[str, Any], *, quiet: bool
) -> str:
    """Stream one answer to standard output and return its text; Ctrl-C ends it early."""
    text = ""
    try:
        with session.stream(messages, **options) as stream:
            for piece in stream:
                text += piece.text
                if not quiet:
                    sys.stdout.write(piece.text)
                    sys.stdout.flush()
    except KeyboardInterrupt:
        print(" [stopped]", file=sys.stderr)
    if not quiet:
        sys.stdout.write("\n")
        sys.stdout.flush()
    return text


def chat(
    message: Annotated[
        str | None,
        typer.Argument(
            help="Ask this one question and stop; - reads it from standard input; none: a "
            "conversation."
        ),
    ] = None,
    model: ModelPath = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    device: Device = "auto",
    gpu_layers: GpuLayers = None,
    precision: Precision = "exact",
    context_length: ContextLength = None,
    cache_type: CacheType = "f16",
    threads: Threads = None,
    pre: Pre = None,
    json: Json = False,
) -> None:
    """Talk with a model through its own chat template."""
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    opening = [{"role": "system", "content": system}] if system is not None else []
    if message == "-":
        message = read_text().rstrip("\r\n")
    if message is not None and not message.strip():
        raise InvalidArgument("the message is empty", subject="message")
    interactive = message is None and sys.stdin is not None and sys.stdin.isatty()
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
        with loaded.session() as session:
            messages = list(opening)
            if interactive:
                print(HELP, file=sys.stderr)
            for line in questions(message, interactive):
                if line.strip() == "/quit":
                    break
                if line.strip() == "/reset":
                    messages = list(opening)
                    continue
                if not line.strip():
                    continue
                messages.append({"role": "user", "content": line})
                try:
                    text = answer(session, messages, options, quiet=json)
                except ContextFull as error:
                    if message is not None:
                        raise
                    del messages[-1]
                    advice = "; /reset forgets the conversation" if messages != opening else ""
                    print(f"quantloom: ContextFull: {error}{advice}", file=sys.stderr)
                    if json:
                        print_json({"question": line, "error": f"ContextFull: {error}"})
                    continue
                messages.append({"role": "assistant", "content": text})
                if json:
                    print_json({"question": line, "answer": text})


def questions(message: str | None, interactive: bool) -> Iterator[str]:
    """The one `message`, or else the lines of standard input; Ctrl-C at the prompt ends them."""
    if message is not None:
        yield message
        return
    if interactive:
        with suppress(ImportError):  # not every Python has it
            import_module("readline")  # with it, input() edits a line and recalls earlier ones
    with suppress(KeyboardInterrupt):
        while (line := read_line("> " if interactive else None)) is not None:
            yield line
