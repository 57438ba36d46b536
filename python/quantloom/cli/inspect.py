"""`quantloom inspect`: what a GGUF file holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from quantloom.cli.options import Json, named, print_json


def shown(value: Any, limit: int = 72) -> str:
    """`value` in at most `limit` characters, control characters escaped."""
    if isinstance(value, (list, tuple, np.ndarray)):
        head = ", ".join(shown(item, 16) for item in value[:4])
        more = f", ... {len(value)} in all" if len(value) > 4 else ""
        return f"[{head}{more}]"
    text = value if isinstance(value, str) else str(value)
    text = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return text if len(text) <= limit else text[: limit - 3] + "..."


def inspect(
    path: Annotated[Path, typer.Argument(parser=named, help="GGUF file.")],
    tensors: Annotated[bool, typer.Option(help="List the tensors too.")] = True,
    json: Json = False,
) -> None:
    """Show a file's metadata and tensors; reads the header only."""
    import quantloom

    with quantloom.open(path) as file:
        total = sum(tensor.nbytes for tensor in file.tensors.values())
        if json:
            print_json(
                {
                    "path": str(path),
                    "version": file.version,
                    "alignment": file.alignment,
                    "bytes": total,
                    "metadata": dict(file.metadata),
                    "tensors": [
                        {
                            "name": tensor.name,
                            "format": tensor.format,
                            "shape": list(tensor.shape),
                            "bytes": tensor.nbytes,
                            "offset": tensor.offset,
                        }
                        for tensor in file.tensors.values()
                    ]
                    if tensors
                    else [],
                }
            )
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console()
        heading = (
            f"{path.name}: GGUF version {file.version}, {len(file.tensors)} tensors, "
            f"{total / 1e6:,.1f} MB of weights"
        )
        tables = [Table("key", "value", title="metadata", title_justify="left")]
        for key, value in file.metadata.items():
            tables[0].add_row(Text(shown(key)), Text(shown(value)))
        if tensors:
            tables.append(
                Table("tensor", "format", "shape", "MB", title="tensors", title_justify="left")
            )
            for tensor in file.tensors.values():
                tables[1].add_row(
                    Text(shown(tensor.name)),
                    tensor.format,
                    " x ".join(str(n) for n in tensor.shape),
                    f"{tensor.nbytes / 1e6:,.2f}",
                )
    # Rich ends the program in its own way where the output cannot be written.
    with console.capture() as captured:
        console.print(Text(heading), *tables, sep="\n")
    sys.stdout.write(captured.get())
