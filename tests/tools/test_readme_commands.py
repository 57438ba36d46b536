"""The `quantloom` commands in the READMEs are such as the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from quantloom.cli import app
from quantloom.mixes import MIXES

ROOT = Path(__file__).resolve().parents[2]
READMES = [
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "tools").rglob("README.md")),
]
# Of click, which later versions of Typer have within themselves.
UsageError = typer.BadParameter.__bases__[0]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def commands_in(text: str) -> list[list[str]]:
    """The words behind `quantloom` of each line of a fenced or indented block that calls it."""
    text = re.sub(r"\\\n\s*", " ", text)
    fenced = "".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    indented = re.findall(r"^ {4}(.*)$", text, re.MULTILINE)
    return [
        shlex.split(line, comments=True)[1:]
        for line in (*fenced.splitlines(), *indented)
        if re.match(r"(\S*/)?quantloom ", line)
    ]


def parse(words: list[str]) -> None:
    """Raises what the command line does with words that it does not understand; runs nothing."""
    assert words[0] in COMMANDS, f"there is no command {words[0]}"
    context = COMMANDS[words[0]].make_context(words[0], words[1:])
    assert context.params.get("mix", "Q4_K_M") in MIXES


@pytest.mark.parametrize(
    "words",
    [words for path in READMES for words in commands_in(path.read_text())],
    ids=" ".join,
)
def test_a_command_of_a_readme_is_understood(words: list[str]) -> None:
    parse(words)


def test_every_command_is_in_the_readme() -> None:
    assert {words[0] for words in commands_in(READMES[0].read_text())} == set(COMMANDS)


@pytest.mark.parametrize(
    "line",
    ["quantize a.gguf b.gguf Q4_K_M", "quantize a b --mix Q4_K_M", "quantize a b --type Q", "run"],
)
def test_what_is_stale_is_found(line: str) -> None:
    text = f"As follows:\n\n    cd x\n    .venv/bin/quantloom \\\n      {line}  # small\n"
    (words,) = commands_in(text)
    assert words == line.split() and commands_in(f"```sh\nquantloom {line}\n```\n") == [words]
    with pytest.raises((UsageError, AssertionError)):
        parse(words)
