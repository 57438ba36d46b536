"""Signals that end `quantloom quantize`: nothing half-written stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from quantloom.cli.signals import exit_on_signals
from quantloom.gguf_writer import GGUFWriter

# Quantizing takes long enough to be met in the middle.
SLOW = """\
import time
from quantloom import quantization
from quantloom.cli import main
quantization.quantize = lambda *arguments, **options: time.sleep(60)
main()
"""
ENDING = (signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", ENDING)
def test_what_was_written_so_far_is_removed(tmp_path: Path, number: signal.Signals) -> None:
    source, folder = tmp_path / "source.gguf", tmp_path / "folder"
    folder.mkdir()
    target = folder / "target.gguf"
    target.write_bytes(b"old")
    writer = GGUFWriter()
    writer.add_tensor("blk.0.ffn_up.weight", np.ones((8, 256), np.float32))
    writer.write(source)
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, "quantize", str(source), str(target), "--overwrite"],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    try:
        end = time.monotonic() + 60
        while len(os.listdir(folder)) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert len(os.listdir(folder)) == 2
        child.send_signal(number)
        _, err = child.communicate(timeout=50)
    finally:
        child.kill()
        child.wait()
    assert (child.returncode, err) == (128 + number, b"")
    assert os.listdir(folder) == ["target.gguf"]
    assert target.read_bytes() == b"old"


@pytest.fixture
def default_signals() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("default_signals")
def test_an_ignored_signal_stays_ignored_and_a_default_comes_back() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with pytest.raises(SystemExit) as caught:
        with exit_on_signals():
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("default_signals")
def test_a_second_signal_does_not_end_the_cleaning_up() -> None:
    cleaned = False
    with pytest.raises(SystemExit) as caught:
        with exit_on_signals():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGHUP)
                cleaned = True
    assert cleaned and caught.value.code == 128 + signal.SIGTERM
