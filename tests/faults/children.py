"""Runs code in a child process, which signals may end and whose memory can be measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

# What every child begins with. `ready` tells the parent that its signal may come now.
PRELUDE = """
import os, sys, time, signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
import quantloom

def ready():
    print("ready", flush=True)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

path = sys.argv[1]
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str
    seconds: float  # from the signal, or from the start where there was none, to the end


def run(
    code: str,
    path: Path,
    device: str = "cpu",
    *,
    send: signal.Signals | None = None,
    after: float = 0.05,
    limit: float = 60,
) -> Ended:
    """Runs `code` with a model file and a device in sys.argv.

    `send` goes to the child `after` seconds after ready().
    """
    child = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, str(path), device],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        start = time.monotonic()
        if send is not None:
            assert child.stdout is not None
            line = child.stdout.readline()
            if line != "ready\n":
                child.kill()
                raise AssertionError(f"the child said {line!r}; {child.communicate()[1]}")
            time.sleep(after)
            start = time.monotonic()
            child.send_signal(send)
        out, err = child.communicate(timeout=limit)
    finally:
        child.kill()
        child.wait()
    return Ended(child.returncode, out, err, time.monotonic() - start)


# child_of(work): what `work` returns in a fork of this process, or the error that it raised.
FORKED = """
import multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads is the point here
fork = multiprocessing.get_context("fork")

def child_of(work):
    receiver, sender = fork.Pipe(duplex=False)
    def target():
        try:
            sender.send(work())
        except BaseException as error:
            sender.send(f"{type(error).__name__}: {error}")
    process = fork.Process(target=target)
    process.start()
    said = receiver.recv() if receiver.poll(20) else "nothing"
    process.join(20)
    if process.is_alive():
        process.kill()
        raise SystemExit(f"hangs after it said {said}")
    assert process.exitcode == 0, (process.exitcode, said)
    return said
"""
