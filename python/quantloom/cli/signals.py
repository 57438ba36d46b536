"""Signals that would end the program before it has removed what it was writing."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise SystemExit, with 128 and their number as its status.

    One that is ignored, as nohup has it, stays so. For work that returns to Python often: within a
    long call of C++ a signal waits, where it would have ended the program at once.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        for other in taken:  # a second one must not end the cleaning up
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    taken = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, leave)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
