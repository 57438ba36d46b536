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
