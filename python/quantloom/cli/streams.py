"""The standard streams of the program, which may be closed, full or of a small encoding."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

from quantloom.errors import FileError


def prepare() -> None:
    """Make standard output and error such that anything can be written to them.

    A closed one takes what is written nowhere, as Python's own `print` does. A character that its
    encoding has not is escaped, unless the user chose another handler than "strict".
    """
    # In this order, so that no file that is opened later gets the number of a closed stream.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Let go of what standard output still buffers, which would fail again at the program's end."""
    with _nowhere() as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


def read_text() -> str:
    """All of standard input.

    Raises:
        FileError: it is closed, unreadable or not in the encoding that Python expects.
    """
    return _read(lambda: sys.stdin.read())


def read_line(prompt: str | None = None) -> str | None:
    """The next line of standard input without its end, or None where there is none.

    Args:
        prompt: for a terminal, where the line can be edited.

    Raises:
        FileError: as for `read_text`.
    """
    if prompt is not None:
        try:
            return _read(lambda: input(prompt))
        except EOFError:
            return None
    line = _read(lambda: sys.stdin.readline())
    return line.rstrip("\r\n") if line else None


def _read(how: Callable[[], str]) -> str:
    if sys.stdin is None:
        raise FileError("cannot read standard input: it is closed", subject="standard input")
    try:
        return how()
    except UnicodeDecodeError as error:
        raise FileError(
            f"cannot read standard input: it is not {error.encoding} text, {error.reason} in "
            f"{error.object[error.start : error.end]!r}",
            subject="standard input",
        ) from None
    except OSError as error:
        raise FileError(
            f"cannot read standard input: {error.strerror}", subject="standard input"
        ) from error
