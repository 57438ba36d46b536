"""Our reader and gguf-py on the same mutated files: they agree, or the reason is listed here."""

from __future__ import annotations

import os
import random
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builder import Builder

import quantloom
from quantloom import GGUFError

try:
    from gguf import GGUFReader
except ImportError:
    pytest.skip("gguf-py is not installed", allow_module_level=True)

# What we refuse and gguf-py takes, by our message. It reads without asking whether a file is sound.
OURS_ALONE = {
    "a tensor's data past the end of the file": r"needs \d+ bytes of data",
    "a tensor off its place: a gap, an overlap, not aligned": r"has its data at \d+",
    "a name that is empty, has a NUL or is not UTF-8": r"an empty|has a NUL byte|is not UTF-8",
    "a name longer than the format's limit": r"bytes long at byte \d+, above the cap",
    "no dimensions, more than four, or a dimension of 0": r"has (dimension|\d+ dimensions)",
    "elements or bytes of a tensor that wrap": r"product of its dimensions|wraps",
    "a row that is not whole blocks": r"not a multiple of its block",
    "an alignment that is no power of two, or of another type": r"'general\.alignment'",
    "an array of arrays": r"array of arrays",
    "a removed or unknown type": r"which was removed|does not define|has the unknown",
    "a name that occurs again": r"occurs again",
}
# gguf-py follows a count or a length that the file cannot hold until memory ends: it is not asked
# where that is what we refuse, and stopped where we found something else before it.
ENDLESS = r"ends inside the|count is|array of \d+ elements|bytes long at byte \d+, and the file"
MOST_READS = 10_000  # the seeds take fewer than 100

# What gguf-py refuses and we take, by its message.
THEIRS_ALONE = {
    # It decodes every key and string strictly; we give the bytes.
    "text that is not UTF-8": r"codec can't decode",
    # A header without an architecture opens alone; its tensors then raise when they are read.
    "a table of tensors without their data": r"cannot reshape array of size 0 into",
}
# ggml's block has two halves and 32 bytes; gguf-py's table says two floats and 32 bytes.
MISSIZED = "Q8_1"


class Endless(Exception):
    """gguf-py has read more values than any of these files holds."""


class BoundedReader(GGUFReader):
    reads = 0

    def _get(self, *arguments: Any, **options: Any) -> Any:
        self.reads += 1
        if self.reads > MOST_READS:
            raise Endless
        return super()._get(*arguments, **options)


def seeds() -> list[bytes]:
    small = Builder()
    small.key("general.architecture", "string", "llama").key("llama.block_count", "uint32", 2)
    small.key("a.flag", "bool", True).key("a.list", "array:int32", [1, -2, 3])
    small.key("a.words", "array:string", ["x", "yy", ""]).key("a.real", "float64", 0.5)
    small.tensor("token_embd.weight", "F32", (4, 3), bytes(range(48)))
    small.tensor("blk.0.w", "Q4_0", (64, 2)).tensor("n", "F16", (8,))
    aligned = Builder(alignment=64, version=2)
    aligned.key("k", "uint8", 1).tensor("t", "Q8_0", (32, 2, 1)).tensor("u", "I8", (5,))
    keys = Builder().key("only", "string", "keys")
    return [small.build(), aligned.build(), keys.build()]


def mutated(data: bytes, draw: random.Random) -> bytes:
    """One to three changes of the header; now and then a cut or a byte more."""
    result = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        position = draw.randrange(len(result))
        kind = draw.randrange(6)
        if kind == 0:
            result[position] ^= 1 << draw.randrange(8)
        elif kind == 1:
            result[position] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            width = draw.choice([4, 8])
            value = draw.choice([0, 1, 2, 3, 5, 31, 32, 64, 2**31, 2**32 - 1])
            result[position : position + width] = value.to_bytes(width, "little")
        elif kind == 3:
            del result[position : position + draw.choice([1, 4, 8])]
        elif kind == 4:
            result[position:position] = bytes(draw.choice([1, 4, 8]))
        else:
            del result[position:]
        if not result:
            break
    return bytes(result)


def plain(value: Any) -> Any:
    """A value in a form that can be compared, NaN included."""
    if isinstance(value, (float, np.floating)):
        return np.float64(value).tobytes()
    if isinstance(value, (list, np.ndarray)):
        return [plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def ours(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with quantloom.open(path) as file:
        keys = {key: plain(value) for key, value in file.metadata.items()}
        tensors = {
            name: (list(t.shape), t.type, t.bytes.tobytes() if file.has_data else None)
            for name, t in file.tensors.items()
        }
    return keys, tensors


def theirs(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = BoundedReader(path)
        keys = {
            name: plain(field.contents())
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.")
        }
        tensors = {
            t.name: (
                [int(n) for n in reversed(t.shape)],
                t.tensor_type.name,
                t.data.tobytes(),
            )
            for t in reader.tensors
        }
    return keys, tensors


def reason(message: str, reasons: dict[str, str]) -> str | None:
    return next((name for name, form in reasons.items() if re.search(form, message)), None)


class MemoryFile:
    """A file that its path leads to; where it can be, in memory.

    Cutting a file on a disk and writing it again takes some file systems milliseconds.
    """

    def __init__(self, folder: Path) -> None:
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("mutated.gguf")
            self.path = Path(f"/proc/self/fd/{self.descriptor}")
        else:
            self.path = folder / "mutated.gguf"
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT)

    def hold(self, data: bytes) -> Path:
        os.ftruncate(self.descriptor, len(data))
        assert os.pwrite(self.descriptor, data, 0) == len(data)
        return self.path


def compare(path: Path, data: bytes, seen: Counter[str]) -> None:
    found = refused = other = failed = None
    try:
        found = ours(path)
    except GGUFError as error:
        refused = str(error)
        if re.search(ENDLESS, refused):
            seen["gguf-py not asked"] += 1
            return
    try:
        other = theirs(path)
    except Endless:
        assert found is None, f"gguf-py does not come to an end: {data!r}"
        seen["gguf-py stopped"] += 1
        return
    except Exception as error:  # gguf-py raises whatever NumPy, struct or its enums raise
        failed = f"{type(error).__name__}: {error}"
    if found is not None and other is not None:
        if any(kind == MISSIZED for _, kind, _ in other[1].values()):
            seen["gguf-py counts 40 bytes a block of Q8_1"] += 1
            return
        assert found == other
        seen["both take it"] += 1
    elif found is not None:
        assert failed is not None
        why = reason(failed, THEIRS_ALONE)
        assert why is not None, f"only gguf-py refuses: {failed}; {data!r}"
        seen["only gguf-py refuses: " + why] += 1
    elif failed is not None:
        seen["both refuse"] += 1
    else:
        assert refused is not None
        why = reason(refused, OURS_ALONE)
        assert why is not None, f"only quantloom refuses: {refused}; {data!r}"
        seen["only quantloom refuses: " + why] += 1


@pytest.mark.parametrize("rounds", [1500, pytest.param(100_000, marks=pytest.mark.slow)])
def test_mutations(rounds: int, tmp_path: Path) -> None:
    file = MemoryFile(tmp_path)
    whole = seeds()
    draw = random.Random(20)
    seen: Counter[str] = Counter()
    for _ in range(rounds):
        data = mutated(draw.choice(whole), draw)
        compare(file.hold(data), data, seen)
    print(*sorted(seen.items()), sep="\n")
    assert seen["both take it"] > rounds // 20
    assert seen["both refuse"] > rounds // 10


def test_the_seeds_are_taken_by_both(tmp_path: Path) -> None:
    for number, data in enumerate(seeds()):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(data)
        assert ours(path) == theirs(path)
