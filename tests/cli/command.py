"""Runs the command line as a user runs it: as a process."""

from __future__ import annotations

import os
import subprocess
import sys


def run(
    *arguments: str, stdin: str = "", env: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quantloom", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
    )


def good(
    *arguments: str, stdin: str = "", env: dict[str, str] | None = None, timeout: float = 120
) -> str:
    done = run(*arguments, stdin=stdin, env=env, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout
