"""`quantloom quantize`: a GGUF file with smaller weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantloom.cli.options import Json, named, print_json, progress_bar
from quantloom.cli.signals import exit_on_signals
from quantloom.mixes import MIXES


def quantize(
    source: Annotated[
        Path, typer.Argument(parser=named, help="GGUF file, best in F32, F16 or BF16.")
    ],
    target: Annotated[Path, typer.Argument(parser=named, help="GGUF file to write.")],
    mix: Annotated[str, typer.Option("--type", help=f"One of {', '.join(MIXES)}.")] = "Q4_K_M",
    overwrite: Annotated[bool, typer.Option(help="Replace the target if it exists.")] = False,
    allow_requantize: Annotated[
        bool, typer.Option(help="Take weights that are quantized already; their error adds up.")
    ] = False,
    json: Json = False,
) -> None:
    """Quantize a GGUF file; the target appears only when it is complete."""
    import quantloom
    from quantloom.errors import InvalidArgument
    from quantloom.quantization import quantize_file

    if target.exists() and not overwrite:
        raise InvalidArgument(f"{target} exists; give --overwrite to replace it", subject="target")
    with exit_on_signals(), progress_bar(f"quantizing to {mix}", quiet=json) as update:
        summary = quantize_file(
            source, target, mix, progress=update, allow_requantize=allow_requantize
        )
    with quantloom.open(source) as file:
        before, shards = file.nbytes, file.shards
    after = target.stat().st_size
    if json:
        print_json(
            {
                "source": str(source),
                "target": str(target),
                "type": summary.mix,
                "source_bytes": before,
                "target_bytes": after,
                "formats": summary.formats,
                "notes": summary.notes,
            }
        )
        return
    of = source.name if shards == 1 else f"the {shards} shards of {source.name}"
    typer.echo(f"{target}: {after / 1e6:,.1f} MB, {after / before:.2f} of {of}")
    for name, count in sorted(summary.formats.items()):
        typer.echo(f"  {name:8} {count} tensors")
    for note in summary.notes:
        typer.echo(f"  {note}")
