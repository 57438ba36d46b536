"""What a file of results says about where it comes from."""

from __future__ import annotations

import datetime
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import quantloom
from quantloom import cuda


def _output(*command: str) -> str:
    """First line that a command prints, or nothing where it cannot run."""
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(command, capture_output=True, text=True, cwd=here)
    except OSError:
        return ""
    return found.stdout.strip().partition("\n")[0] if found.returncode == 0 else ""


def commit() -> str:
    return _output("git", "rev-parse", "HEAD") or "unknown"


def device_name(device: str) -> str:
    """Of a GPU what its driver says, of the CPU what the system does."""
    if device != "cpu":
        return cuda.devices()[int(device.partition(":")[2] or 0)].name
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def command() -> str:
    """How this program was called; folders of this machine say nothing elsewhere."""
    program, *words = sys.argv
    words = [Path(word).name if word.startswith("/") else word for word in words]
    return shlex.join(["python", f"benchmarks/{Path(program).name}", *words])


def origin(device: str, built: str | None = None) -> dict[str, Any]:
    """Device, day, commit, command and versions; `built` is the commit where git knows none."""
    found: dict[str, Any] = {
        "device": device_name(device),
        "date": datetime.date.today().isoformat(),
        "commit": built or commit(),
        "command": command(),
        "versions": {
            "quantloom": quantloom.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }
    if device != "cpu":
        query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        found["driver"] = _output(*query) or "unknown"
        found["versions"]["cuda"] = cuda.status().runtime_version
    return found
