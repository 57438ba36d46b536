"""What `Model.explain` gives: where every tensor is, and what computes with it."""

from __future__ import annotations

import html
from dataclasses import dataclass


@dataclass(frozen=True)
class TensorPlace:
    """One tensor on a device.

    Attributes:
        name: in the file; in parentheses what quantloom adds.
        type: such as "Q4_K".
        device: "cpu" or "cuda:N".
        kernel: what multiplies one token by it, or looks up its rows; "" for vectors. On a GPU
            "decode program" (one kernel for the layers and the head of a token), else a kernel of
            the product's own: "stream-1", "stream-8" (a few tokens' kernel), "wide" (many
            tokens'), "raw blocks" (float weights as they stand in the file); "embed" looks up. On
            the CPU the instruction set; "decode rows" looks up.
        bytes: of the device's memory; on the CPU a matrix's are the mapped file's.
    """

    name: str
    type: str
    device: str
    kernel: str
    bytes: int


@dataclass(frozen=True)
class Explanation:
    """Every tensor of a model, with sums; printed as a table.

    Attributes:
        tensors: in the order matrices, vectors, RoPE table.
        totals: bytes by device, the sums of the column.
        cache_bytes: that each session adds for its keys and values.
        step: how a GPU computes the layers of a generated token, and where that is not one kernel
            why; "" without a GPU.
    """

    tensors: tuple[TensorPlace, ...]
    totals: dict[str, int]
    cache_bytes: int
    step: str

    def __str__(self) -> str:
        rows = [(t.name, t.type, t.device, t.kernel, f"{t.bytes:,}") for t in self.tensors]
        rows += [("total", "", device, "", f"{n:,}") for device, n in self.totals.items()]
        rows.append(("cache of a session", "", "", "", f"{self.cache_bytes:,}"))
        head = ("tensor", "type", "device", "kernel", "bytes")
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        lines = []
        for row in [head, *rows]:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            cells[-1] = row[-1].rjust(widths[-1])
            lines.append("  ".join(cells).rstrip())
        if self.step:
            lines.append(self.step)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
