"""Hostile files: each gives one typed error that names what is wrong, where, and the limit."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import pytest
from builder import SCALARS, Builder, key_value, small_file, string
from hazard_cases import CASES, Case
from peak_memory import peak_above_now

import quantloom
from quantloom.errors import FileError, GGUFError


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row}-{case.name}")
def test_typed_error(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(case.data)
    risen = peak_above_now()
    started = time.process_time()
    with pytest.raises(GGUFError) as raised:
        quantloom.open(path)
    assert time.process_time() - started < 2
    assert risen() < 64 << 20
    error = raised.value
    assert str(error).startswith("hostile.gguf: ")
    assert case.message in str(error)
    if case.subject is not None:
        assert error.subject == case.subject
    if case.offset is not None:
        assert error.offset == case.offset
    if case.limit is not None:
        assert error.limit == case.limit


def test_rows_are_all_there() -> None:
    assert {case.row for case in CASES} == set(range(1, 17))


def test_cut_at_every_byte(tmp_path: Path) -> None:
    data = small_file().build()
    path = tmp_path / "cut.gguf"
    path.write_bytes(data)
    quantloom.open(path).close()
    for size in reversed(range(len(data))):
        os.truncate(path, size)
        with pytest.raises(GGUFError):
            quantloom.open(path)


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_byte_changed(tmp_path: Path, flip: int) -> None:
    """A changed byte gives a file that opens or a typed error, and what opens can be read."""
    data = small_file().build()
    path = tmp_path / "changed.gguf"
    path.write_bytes(data)
    opened = failed = 0
    with path.open("r+b", buffering=0) as handle:
        for position in range(len(small_file().header())):
            os.pwrite(handle.fileno(), bytes([data[position] ^ flip]), position)
            try:
                with quantloom.open(path) as file:
                    assert len(dict(file.metadata)) == len(file.metadata)
                    for tensor in file.tensors.values():
                        assert tensor.bytes.size == tensor.nbytes
                opened += 1
            except GGUFError as error:
                assert str(error) and error.subject
                failed += 1
            os.pwrite(handle.fileno(), data[position : position + 1], position)
    assert opened > 100 and failed > 100


def test_many_duplicates_stay_fast(tmp_path: Path) -> None:
    """A million keys, all different but the last: sorted, not compared in pairs."""
    keys = [key_value(f"key.{i}", "uint8", 0) for i in range(200_000)]
    path = tmp_path / "many.gguf"
    builder = Builder(records=[*keys, keys[100_000]])
    path.write_bytes(builder.build())
    started = time.process_time()
    with pytest.raises(GGUFError, match=r"'key\.100000' occurs again"):
        quantloom.open(path)
    assert time.process_time() - started < 2


def test_long_names_are_cut_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "long.gguf"
    path.write_bytes(Builder().raw_key(string("\u03b2" * 20_000) + struct.pack("<I", 77)).build())
    with pytest.raises(GGUFError) as raised:
        quantloom.open(path)
    assert len(str(raised.value)) < 300
    assert "\ufffd" not in str(raised.value)


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file or directory") as raised:
        quantloom.open(tmp_path / "absent.gguf")
    assert isinstance(raised.value, OSError)
    assert raised.value.subject == str(tmp_path / "absent.gguf")
    with pytest.raises(FileError, match="it is a folder"):
        quantloom.open(tmp_path)
    with pytest.raises(FileError, match="not a regular file"):
        quantloom.open("/dev/null")


@pytest.mark.parametrize("kind", SCALARS)
def test_values_of_every_width_cut_short(kind: str, tmp_path: Path) -> None:
    record = key_value("k", kind, 1)
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + record[:-1]
    path = tmp_path / "short.gguf"
    path.write_bytes(data)
    with pytest.raises(GGUFError):
        quantloom.open(path)


def test_shared_bad_files(shared_data: Path) -> None:
    paths = sorted((shared_data / "bad").glob("*.gguf"))
    assert len(paths) == 27
    for path in paths:
        if ".invalid." in path.name:
            with pytest.raises(GGUFError) as raised:
                quantloom.open(path)
            assert raised.value.subject, path.name
        else:
            with quantloom.open(path) as file:
                for tensor in file.tensors.values():
                    if file.has_data:
                        assert tensor.bytes.size == tensor.nbytes
                    else:
                        with pytest.raises(GGUFError, match="has no data"):
                            _ = tensor.bytes
