"""Reads what the processes of a sanitized run wrote and ends with 1 where some of it is ours.

    python report.py FOLDER_OF_LOGS [--leaks]

An error of any kind counts. A leak counts where a frame of the extension module allocated it.
LeakSanitizer's own suppressions cannot say that: they hide a stack in which any frame matches, and
in every stack of ours there are frames of Python. So nothing is suppressed there, and what Python
and its packages never free is left out here. With --leaks a run in which no process reported a
leak is an error: Python always leaves something, so nobody looked.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

MODULE = "_quantloom"
LEAK = re.compile(r"(Direct|Indirect) leak of (\d+) byte")
FRAME = re.compile(r"^\s+#\d+ .*?\((?P<module>[^()]+)\+(?P<offset>0x[0-9a-f]+)\)")
AROUND_LEAKS = re.compile(
    r"^(=+|==\d+==ERROR: LeakSanitizer: detected memory leaks"
    r"|SUMMARY: AddressSanitizer: \d+ byte\(s\) leaked in .*|\s*)$"
)
# What the module makes once and keeps for as long as the process lives: its classes, functions
# and exceptions, which Python gives up at its end without freeing them. Only frames of these
# functions themselves: what they bind are lambdas whose names begin with theirs.
FOR_EVER = re.compile(
    r"^(\(inlined by\) )?(PyInit__quantloom|pybind11_init__quantloom\(pybind11::module_&\)"
    r"|bind_\w+\(pybind11::module_&\)) at ",
    re.MULTILINE,
)


@cache
def symbols(module: str, offset: str) -> str:
    """The functions at an offset, the inlined ones first, with their lines."""
    found = subprocess.run(
        ["addr2line", "-f", "-C", "-i", "-p", "-e", module, offset],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or f"{module}+{offset}"


def readable(text: str) -> str:
    """The lines, with the frames of the module as functions and lines."""
    lines = []
    for line in text.splitlines():
        frame = FRAME.match(line)
        if frame and MODULE in frame["module"]:
            line = f"{line}\n        {symbols(frame['module'], frame['offset'])}"
        lines.append(line)
    return "\n".join(lines)


def is_ours(leak: str) -> bool:
    frames = [frame for frame in map(FRAME.match, leak.splitlines()) if frame]
    ours = [frame for frame in frames if MODULE in frame["module"]]
    return bool(ours) and not any(
        FOR_EVER.search(symbols(frame["module"], frame["offset"])) for frame in ours
    )


def main() -> int:
    logs = [path for path in Path(sys.argv[1]).iterdir() if path.stat().st_size]
    foreign = reports = 0
    ours: Counter[str] = Counter()
    errors = []
    for path in logs:
        others = []
        looked = False
        for part in re.split(r"\n\s*\n", path.read_text(errors="replace")):
            if found := LEAK.search(part):
                looked = True
                if is_ours(part):
                    ours[readable(part[found.start() :])] += 1
                else:
                    foreign += 1
                part = part[: found.start()]
            others += [line for line in part.splitlines() if not AROUND_LEAKS.match(line)]
        reports += looked
        if others:
            errors.append("\n".join(others))
    for text in errors[:20]:
        print(readable(text))
    for text, times in ours.most_common(20):
        print(f"{text}\n    in {times} processes\n")
    print(f"{len(errors)} processes with errors, {len(ours)} leaks of ours", end="")
    if "--leaks" not in sys.argv:
        print()
    else:
        print(f", {foreign} of others, in the reports of {reports} processes")
        if not reports:
            print("no process reported a leak: LeakSanitizer did not run")
            return 1
    return 1 if errors or ours else 0


if __name__ == "__main__":
    raise SystemExit(main())
