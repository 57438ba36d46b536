"""Execute notebooks and fail on the first error; --write keeps their outputs."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

paths = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
if not paths:
    sys.exit("usage: run_notebooks.py [--write] NOTEBOOK ...")
for path in paths:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": path.parent}},
    ).execute()
    if "--write" in sys.argv:
        nbformat.write(notebook, path)
    print(f"{path}: {len(notebook.cells)} cells ran")
