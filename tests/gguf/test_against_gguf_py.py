"""Our reader against the `gguf` package's on real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantloom

gguf = pytest.importorskip("gguf")


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def compare(path: Path) -> None:
    theirs = gguf.GGUFReader(path)
    with quantloom.open(path) as ours:
        keys = [key for key in theirs.fields if not key.startswith("GGUF.")]
        assert list(ours.metadata) == keys
        for key in keys:
            assert plain(ours.metadata[key]) == theirs.fields[key].contents(), key
        assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
        for tensor in theirs.tensors:
            mine = ours.tensors[tensor.name]
            assert mine.format == tensor.tensor_type.name
            assert mine.shape == tuple(reversed(tensor.shape.tolist()))
            assert mine.offset == tensor.data_offset
            assert mine.bytes.tobytes() == tensor.data.tobytes()


def test_models(shared_data: Path) -> None:
    paths = sorted((shared_data / "models").glob("*.gguf"))
    assert len(paths) >= 13
    for path in paths:
        compare(path)


@pytest.mark.slow  # the package's reader takes 0.1 ms for each token
def test_vocabularies(shared_data: Path) -> None:
    paths = sorted((shared_data / "vocab").glob("*.gguf"))
    assert len(paths) >= 5
    for path in paths:
        compare(path)


def test_writer_of_the_package(tmp_path: Path) -> None:
    path = tmp_path / "written.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("w", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with quantloom.open(path) as file:
        assert file.metadata["llama.block_count"] == 3
        assert file.metadata["tokenizer.ggml.tokens"] == ["a", "b"]
        assert file.tensors["w"].dequantize().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_big_endian_file_of_the_package(tmp_path: Path) -> None:
    path = tmp_path / "big.gguf"
    writer = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian.BIG)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(quantloom.errors.GGUFError, match="big-endian"):
        quantloom.open(path)
