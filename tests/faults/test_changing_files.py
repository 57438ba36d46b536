"""Files that others change: an error where that can be had; a loaded model keeps its weights."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from children import run

import quantloom
from quantloom import FileError
from synthetic_model import Synthetic


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:  # in place: cut to nothing meanwhile, it would be a bus error
        file.write(path.read_bytes())


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 64)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [cut, grow, touch, rewrite])
def test_a_change_during_a_load(
    change: Callable[[Path], None], device: str, tmp_path: Path
) -> None:
    path = Synthetic().write(tmp_path)
    os.utime(path, ns=(10**18, 10**18))
    changed = False

    def progress(done: int, total: int) -> None:
        nonlocal changed
        if not changed:
            change(path)
            changed = True

    said = "changed on disk since it was opened|has become shorter"
    with pytest.raises(FileError, match=said) as caught:
        quantloom.load(path, device=device, progress=progress)
    assert changed
    assert caught.value.subject == str(path) or "shorter" in str(caught.value)


def packed(*lengths: int) -> bytes:
    """Strings of so many zero bytes, as an array holds them."""
    return b"".join(struct.pack("<Q", length) + bytes(length) for length in lengths)


LENGTHS = {
    "more strings": (1, packed(8000), packed(*[0] * 1001)),
    "fewer strings": (1001, packed(*[0] * 1001), packed(8000)),
    "past the end": (2, packed(8, 8), packed(8) + struct.pack("<Q", 9) + bytes(8)),
    "half a length": (2, packed(8, 8), packed(20) + bytes(4)),
}


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("case", LENGTHS)
def test_lengths_of_strings_that_change(case: str, seen: bool, tmp_path: Path) -> None:
    """`seen` by the time of the change; unseen, the lengths no longer fit."""
    count, before, after = LENGTHS[case]
    path = tmp_path / "changing.gguf"
    head = struct.pack("<4sIQQQ5sIIQ", b"GGUF", 3, 0, 1, 5, b"words", 9, 8, count)
    path.write_bytes(head + before)
    os.utime(path, ns=(10**18, 10**18))
    with quantloom.open(path) as file:
        with path.open("r+b") as target:
            target.seek(len(head))
            target.write(after)
        if not seen:
            os.utime(path, ns=(10**18, 10**18))
        kind, name = (FileError, str(path)) if seen else (quantloom.GGUFError, "words")
        with pytest.raises(kind, match="has changed") as caught:
            _ = file.metadata["words"]
        assert caught.value.subject == name


@pytest.mark.parametrize("check", [True, False])
def test_a_change_between_open_and_load(check: bool, tmp_path: Path) -> None:
    path = Synthetic().write(tmp_path)
    with quantloom.open(path) as file:
        cut(path)
        with pytest.raises(FileError, match="changed on disk"):
            _ = file.tensors["token_embd.weight"].bytes
    with pytest.raises(quantloom.GGUFError, match="bytes of data"):
        quantloom.load(path, device="cpu", check_weights=check)


def test_replacing_and_deleting_leave_a_loaded_model_alone(device: str, tmp_path: Path) -> None:
    path = Synthetic(seed=1).write(tmp_path)
    with quantloom.load(path, device=device) as model:
        expected = model.logits([1, 2, 3]).tobytes()
        other = Synthetic(seed=2).write(tmp_path, "other.gguf")
        other.replace(path)
        assert model.logits([1, 2, 3]).tobytes() == expected
        path.unlink()
        assert model.logits([1, 2, 3]).tobytes() == expected


@pytest.mark.parametrize("change", [cut, grow, touch, rewrite])
def test_a_loaded_model_says_that_its_file_has_changed(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    path = Synthetic().write(tmp_path)
    os.utime(path, ns=(10**18, 10**18))
    with quantloom.load(path, device="cpu") as model, model.session() as session:
        session.generate([1, 2, 3], max_new_tokens=2)
        change(path)
        for call in (model.generate, session.generate, model.logits):
            with pytest.raises(FileError, match="changed on disk since it was opened"):
                call([1, 2, 3])


def test_a_cut_in_the_middle_of_a_generation_ends_in_a_bus_error_at_worst(tmp_path: Path) -> None:
    """What SECURITY.md does not promise: on the CPU the weights are read from the map."""
    path = Synthetic(embedding=256, feed_forward=1024).write(tmp_path)
    code = """
model = quantloom.load(path, device="cpu")
stream = model.stream([1, 2, 3], max_new_tokens=100, ignore_eos=True)
next(stream)
os.truncate(path, 4096)
try:
    for piece in stream:
        pass
except quantloom.FileError:
    pass
"""
    ended = run(code, path)
    assert ended.code in (0, -7), ended  # SIGBUS
