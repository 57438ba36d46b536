"""`quantloom chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quantloom.cli.options import (
    CacheType,
    ContextLength,
    Device,
    Json,
    MaxNewTokens,
    MinP,
    ModelPath,
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

if TYPE_CHECKING:
    from quantloom.model import Session

HELP = "/reset forgets the conversation, /quit (or Ctrl-D) ends it, Ctrl-C stops an answer"


def answer(
    session: Session, messages: list[dict[str, str]], options: dict[str, Any], *, quiet: bool
) -> str:
    """Stream one answer to standard output and return its text; Ctrl-C ends it early."""
    text = ""
    with session.stream(messages, **options) as stream:
        try:
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
        str | None, typer.Argument(help="Ask this one question and stop; none: a conversation.")
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
    precision: Precision = "exact",
    context_length: ContextLength = None,
    cache_type: CacheType = "f16",
    threads: Threads = None,
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
    interactive = message is None and sys.stdin.isatty()
    with load_model(
        model,
        device=device,
        precision=precision,
        context_length=context_length,
        cache_type=cache_type,
        threads=threads,
        quiet=json,
    ) as loaded:
        with loaded.session() as session:
            messages = list(opening)
            if interactive:
                print(HELP, file=sys.stderr)
            while True:
                line = message if message is not None else read_line(interactive)
                if line is None or line.strip() == "/quit":
                    break
                if line.strip() == "/reset":
                    messages = list(opening)
                    continue
                if not line.strip():
                    continue
                messages.append({"role": "user", "content": line})
                text = answer(session, messages, options, quiet=json)
                messages.append({"role": "assistant", "content": text})
                if json:
                    print_json({"question": line, "answer": text})
                if message is not None:
                    break


def read_line(interactive: bool) -> str | None:
    """The next line of standard input without its newline, or None at its end."""
    try:
        if interactive:
            return input("> ")
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    except (EOFError, KeyboardInterrupt):
        return None
