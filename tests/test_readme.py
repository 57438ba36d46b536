"""The README's Python examples give the output that stands there."""

from __future__ import annotations

import doctest
from pathlib import Path


def test_examples(repository: Path) -> None:
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testfile(
        str(repository / "README.md"), module_relative=False, optionflags=flags
    )
    assert result.attempted > 20
    assert result.failed == 0
