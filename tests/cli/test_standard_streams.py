"""Standard streams that are closed, full, cut off or of another encoding, and Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import good, run

from quantloom.model import bundled_model

COMMAND = [sys.executable, "-m", "quantloom"]
STRICT = {"PYTHONIOENCODING": "utf-8:strict"}
ASCII = {"PYTHONIOENCODING": "ascii"}
MODEL = str(bundled_model())


def without(*descriptors: int) -> Callable[[], None]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


def ended(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([*COMMAND, *arguments], text=True, timeout=120, **options)


@pytest.mark.parametrize("arguments", [["generate", "-", "--device", "cpu"], ["chat"]])
def test_input_that_is_no_text_is_refused_in_one_line(arguments: list[str]) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=b"caf\xe9\n",
        capture_output=True,
        timeout=120,
        env={**os.environ, **STRICT},
    )
    assert done.returncode == 1
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("quantloom: FileError: cannot read standard input: it is not utf-8")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["generate", "-", "--device", "cpu"], ["chat"]])
def test_closed_input_is_refused_where_it_is_read(arguments: list[str]) -> None:
    done = ended(*arguments, preexec_fn=without(0))
    assert done.returncode == 1
    assert "FileError: cannot read standard input: it is closed" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_input_that_nobody_reads_does_no_harm() -> None:
    done = ended("chat", "What is 2+2?", preexec_fn=without(0))
    assert (done.returncode, done.stdout) == (0, "4\n")


@pytest.mark.parametrize(
    "arguments", [["chat", "What is 2+2?"], ["inspect", MODEL], ["inspect", MODEL, "--json"]]
)
def test_closed_output_takes_what_is_written_nowhere(arguments: list[str]) -> None:
    done = ended(*arguments, preexec_fn=without(1))
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr


def test_a_notice_for_a_closed_error_stream_does_not_reach_the_output() -> None:
    done = ended("chat", "What is 2+2?", preexec_fn=without(2))
    assert (done.returncode, done.stdout, done.stderr) == (0, "4\n", "")


@pytest.mark.parametrize(
    "arguments",
    [["chat", "What is 2+2?"], ["inspect", MODEL], ["inspect", MODEL, "--json"], ["--version"]],
)
def test_a_full_disk_behind_the_output_is_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = ended(*arguments, stdout=full)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == "quantloom: FileError: cannot write standard output: No space left on device"
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize("arguments", [["inspect", MODEL], ["inspect", MODEL, "--json"]])
def test_a_reader_that_went_away_ends_the_program_quietly(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = ended(*arguments, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_is_told() -> None:
    child = subprocess.Popen(
        [*COMMAND, "generate", "-", "--device", "cpu"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A job in the background ignores Ctrl-C, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert child.stdin is not None
    try:
        child.stdin.write(b"x" * (1 << 20))  # more than a pipe holds: it is being read then
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert (child.returncode, err) == (130, b"quantloom: interrupted\n")


def test_a_name_that_the_output_has_no_letters_for_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "модель.gguf"
    shutil.copy(MODEL, path)
    escaped = "модель".encode("unicode_escape").decode()
    assert good("inspect", str(path), env=ASCII).startswith(f"{escaped}.gguf: GGUF")
    assert json.loads(good("inspect", str(path), "--json", env=ASCII))["path"] == str(path)


def test_an_error_about_a_name_of_several_lines_is_one_line() -> None:
    done = run("inspect", "no\nwhere.gguf")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
