"""Write python/quantloom/_quantloom.pyi from the built module, or --check that it is up to date."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "python" / "quantloom" / "_quantloom.pyi"


def generate() -> str:
    """The stub of the installed extension module."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pybind11_stubgen", "quantloom._quantloom", "-o", folder],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        text = (Path(folder) / "quantloom" / "_quantloom.pyi").read_text()
    # The version is the build's, not the interface's; NumPy's own stubs do not call arrays buffers.
    text = re.sub(r"^__version__.*$", "__version__: str", text, flags=re.MULTILINE)
    text = re.sub(r"typing_extensions\.Buffer", "typing.Any", text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def main() -> int:
    """Write or check; the exit status says whether the stub was up to date."""
    new = generate()
    if "--check" in sys.argv:
        if not TARGET.exists() or TARGET.read_text() != new:
            print(f"{TARGET.name} is not what the module says; run python tools/stubs.py")
            return 1
        return 0
    TARGET.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
