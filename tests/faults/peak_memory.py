"""How far this process's memory rose above what it held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_above_now() -> Callable[[], int]:
    """Forgets the peak so far; what is returned tells by how many bytes the next one rose.

    The peak that getrusage() tells is that of the process's whole life, which an earlier test set.
    """
    Path("/proc/self/clear_refs").write_text("5")
    held = kibibytes("VmHWM")
    return lambda: (kibibytes("VmHWM") - held) * 1024


def kibibytes(name: str) -> int:
    """A line of /proc/self/status."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise AssertionError(f"{STATUS} has no {name}")
