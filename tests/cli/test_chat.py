"""`quantloom chat`: what ends it, what does not, and how a line is read."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from typing import Any, NoReturn, cast

import pytest
from command import good, run

from quantloom.cli.chat import answer
from quantloom.session import Session

LONG = "Tell me what is two plus two, and then again what is two plus two. " * 3
SMALL = ("--context-length", "48", "--device", "cpu")


@pytest.mark.parametrize("message", ["", " "])
def test_an_empty_message_is_refused(message: str) -> None:
    done = run("chat", message, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "quantloom: InvalidArgument: the message is empty\n"


def test_a_question_from_standard_input_is_one_question() -> None:
    question = "What is\n2+2?"
    asked = json.loads(good("chat", "-", *SMALL, "--json", stdin=f"{question}\n"))
    assert asked["question"] == question
    done = run("chat", "-", stdin="\n", timeout=30)
    assert done.returncode == 1
    assert done.stderr == "quantloom: InvalidArgument: the message is empty\n"


@pytest.mark.parametrize("message", ["/reset", "/quit"])
def test_a_message_that_is_a_command_ends_at_once(message: str) -> None:
    assert good("chat", message, timeout=30) == ""


def test_a_full_context_does_not_end_a_conversation() -> None:
    lines = f"What is 2+2?\n{LONG}\nWhat is 5-2?\n/reset\nWhat is 3+4?\n"
    done = run("chat", *SMALL, stdin=lines)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4", "3", "7"]
    told = [line for line in done.stderr.splitlines() if "ContextFull" in line]
    assert len(told) == 1
    assert told[0].endswith("more than the context of 48; /reset forgets the conversation")


def test_a_full_context_has_its_line_of_json() -> None:
    done = run("chat", *SMALL, "--json", stdin=f"{LONG}\nWhat is 5-2?\n")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["question"] == LONG
    assert first["error"].startswith("ContextFull: ")
    assert "/reset" not in done.stderr  # there is nothing to forget
    assert second == {"question": "What is 5-2?", "answer": "3"}


def test_a_full_context_ends_a_single_question() -> None:
    done = run("chat", LONG, *SMALL)
    assert done.returncode == 1
    assert "quantloom: ContextFull: " in done.stderr


def test_lines_may_end_as_on_windows() -> None:
    answered = json.loads(good("chat", "--json", stdin="What is 2+2?\r\n"))
    assert answered == {"question": "What is 2+2?", "answer": "4"}


def test_ctrl_c_before_the_first_piece_stops_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted:
        def stream(self, messages: Any, **options: Any) -> NoReturn:
            raise KeyboardInterrupt

    try:
        text = answer(cast(Session, Interrupted()), [], {}, quiet=False)
    except KeyboardInterrupt:  # which would end pytest
        pytest.fail("Ctrl-C ended the conversation")
    assert text == ""
    assert capsys.readouterr().err == " [stopped]\n"


def test_a_line_is_edited_and_recalled() -> None:
    pytest.importorskip("readline")
    terminal, end = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "quantloom", "chat", "--device", "cpu"],
        stdin=end,
        stdout=end,
        stderr=end,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(end)

    def until(text: bytes) -> None:
        shown = b""
        deadline = time.monotonic() + 60
        while text not in shown:
            assert select.select([terminal], [], [], deadline - time.monotonic())[0], shown
            shown += os.read(terminal, 4096)

    try:
        until(b"> ")
        # To the start, a letter; to the end, a letter and away with it: keys of the editor.
        os.write(terminal, b"hat is 2+2?\x01W\x05!\x08\n")
        until(b"4\r\n> ")
        os.write(terminal, b"\x1b[A\n")
        until(b"4\r\n> ")
        os.write(terminal, b"/quit\n")
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()
        os.close(terminal)
