"""What the README's commands leave in a clone is neither committed nor packed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def environments(repository: Path) -> set[str]:
    """Folders that the README's commands make."""
    made = re.findall(r"^python3 -m venv (\S+)$", (repository / "README.md").read_text(), re.M)
    assert made
    return set(made)


def test_git_ignores_the_environment(repository: Path, environments: set[str]) -> None:
    if not (repository / ".git").exists():
        pytest.skip("not a clone")
    for folder in environments:
        asked = ["git", "check-ignore", "--quiet", f"{folder}/pyvenv.cfg"]
        assert subprocess.run(asked, cwd=repository).returncode == 0, folder


def test_a_source_archive_leaves_the_environment_out(
    repository: Path, environments: set[str]
) -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    excluded = settings["tool"]["scikit-build"]["sdist"]["exclude"]
    assert {f"/{folder}" for folder in environments} <= set(excluded)


@pytest.mark.parametrize(
    "name",
    ["csrc/device/runtime.cpp", "tools/cmake/find_cuda.cmake", "python/quantloom/cli/download.py"],
)
def test_an_advised_command_names_what_to_install(repository: Path, name: str) -> None:
    text = re.sub(r'"\s*\n\s*"', "", (repository / name).read_text())  # a literal in pieces
    advised = re.findall(r"pip install ([^\"();,\n]+)", text)
    settings = re.findall(r"\S*--config-settings", text)
    assert advised
    for words in advised:
        assert any(not word.startswith("-") for word in words.split()), words
    # A setting of the build is no command by itself.
    assert len(settings) == sum("--config-settings" in words for words in advised)
