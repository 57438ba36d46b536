"""Lets these tests import the packages of tools/ and the scripts of benchmarks/."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("tools", "benchmarks"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / folder))
