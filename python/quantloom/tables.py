"""Tables of what comes from files, as text and as HTML; nothing in them is longer than a line."""

from __future__ import annotations

import html
from collections.abc import Iterable


def bytes_text(count: int) -> str:
    """A number of bytes in words."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def shortened(text: str, limit: int = 64) -> str:
    """At most `limit` characters; those that do not print are escaped."""
    head = text[: limit + 1]
    shown = (
        head
        if head.isprintable()
        else "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in head
        )
    )
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def escaped(text: str) -> str:
    """`text`, shortened, for HTML."""
    return html.escape(shortened(text))


def text_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Rows as lines of aligned columns."""
    lines = [header, *(tuple(shortened(cell) for cell in row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def html_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Rows as an HTML table."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
