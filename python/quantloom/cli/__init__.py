"""The command line, `quantloom COMMAND`: one module a command."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from quantloom.cli import bench, chat, download, generate, inspect, perplexity, quantize, streams
from quantloom.errors import QuantloomError


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        # Typer itself would end the program in silence at Ctrl-C, and with 1 at a broken pipe.
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            print("quantloom: interrupted", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            streams.discard_output()
            raise typer.Exit(141) from None
        return result


app = typer.Typer(
    name="quantloom",
    cls=_Commands,
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
    """Run the command line; an error of ours is one line on stderr and exit status 1.

    Ctrl-C ends it with 130, a reader of its output that went away with 141.
    """
    streams.prepare()
    try:
        app()
    except QuantloomError as error:
        _fail(f"{type(error).__name__}: {error}")
    except OSError as error:
        # One that names no file comes from the writing of the output.
        what = "cannot write standard output" if error.filename is None else error.filename
        _fail(f"FileError: {what}: {error.strerror or error}")


def _fail(message: str) -> NoReturn:
    print(f"quantloom: {' '.join(message.splitlines())}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        streams.discard_output()
    sys.exit(1)
