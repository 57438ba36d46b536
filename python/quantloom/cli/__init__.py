"""The command line, `quantloom COMMAND`: one module a command."""

from __future__ import annotations

import os
import sys

import typer

from quantloom.cli import bench, chat, download, generate, inspect, perplexity, quantize
from quantloom.errors import QuantloomError

app = typer.Typer(
    name="quantloom",
    help="Run quantized language models from GGUF files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(generate.generate)
app.command()(chat.chat)
app.command()(inspect.inspect)
app.command()(quantize.quantize)
app.command()(bench.bench)
app.command()(perplexity.perplexity)
app.command()(download.download)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    """Options of the program itself."""
    if version:
        from quantloom import __version__

        typer.echo(f"quantloom {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit status 1."""
    try:
        app()
    except QuantloomError as error:
        print(f"quantloom: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("quantloom: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader went away; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
