"""Print the n-th shell block of README.md (1 installs and answers, 2 tests), as CI runs it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

readme = Path(__file__).resolve().parent.parent / "README.md"
blocks = re.findall(r"^```bash\n(.*?)^```", readme.read_text(), re.MULTILINE | re.DOTALL)
number = int(sys.argv[1])
if not 1 <= number <= len(blocks):
    sys.exit(f"README.md has {len(blocks)} shell blocks; {number} was asked for")
print(blocks[number - 1], end="")
