"""Split files: put together from one folder, refused when the shards do not belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builder import Builder

import quantloom
from quantloom.errors import FileError, GGUFError, QuantloomError

NAMES = [f"model-{i:05}-of-00003.gguf" for i in (1, 2, 3)]


def shard(number: int, count: int = 3, tensors: int = 5, **changes: Any) -> Builder:
    """Shard `number` (from 0) of three, holding 1, 2 and 2 tensors."""
    builder = Builder()
    if number == 0:
        builder.key("general.architecture", "string", "llama")
    builder.key("split.no", "uint16", changes.get("no", number))
    builder.key("split.count", changes.get("kind", "uint16"), count)
    builder.key("split.tensors.count", "int32", tensors)
    for name in changes.get("names", [["a"], ["b", "c"], ["d", "e"]][number]):
        builder.tensor(name, "F32", (8,), bytes([ord(name)]) * 32)
    return builder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(shard(number).build())
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_any_shard_opens_all(folder: Path, name: str) -> None:
    with quantloom.open(folder / name) as file:
        assert file.shards == 3
        assert file.nbytes == sum((folder / name).stat().st_size for name in NAMES)
        assert file.architecture == "llama"
        assert list(file.tensors) == ["a", "b", "c", "d", "e"]
        for letter, tensor in file.tensors.items():
            assert tensor.bytes.tobytes() == letter.encode() * 32
            assert (folder / NAMES[tensor.shard]).read_bytes()[tensor.offset :][:32] == (
                letter.encode() * 32
            )
        assert "3 shards" in repr(file)


def test_relative_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with quantloom.open(NAMES[0]) as file:
        assert len(file.tensors) == 5


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    """A cache of downloads keeps the names in one folder and the contents in another."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in NAMES:
        (snapshot / name).symlink_to(folder / name)
    with quantloom.open(snapshot / NAMES[0]) as file:
        assert len(file.tensors) == 5


def test_one_shard_of_one(tmp_path: Path) -> None:
    path = tmp_path / "whole.gguf"
    path.write_bytes(shard(0, count=1, tensors=1).build())
    with quantloom.open(path) as file:
        assert file.shards == 1


def test_missing_shard(folder: Path) -> None:
    (folder / NAMES[1]).unlink()
    with pytest.raises(FileError, match=NAMES[1]):
        quantloom.open(folder / NAMES[0])


def replace(folder: Path, number: int, builder: Builder) -> QuantloomError:
    (folder / NAMES[number]).write_bytes(builder.build())
    with pytest.raises(GGUFError) as raised:
        quantloom.open(folder / NAMES[0])
    return raised.value


@pytest.mark.parametrize("count", [0, 1025, 2**16 - 1])
def test_count_bomb(folder: Path, count: int) -> None:
    error = replace(folder, 0, shard(0, count=count))
    assert "'split.count' is" in str(error) and "outside 1 to 1024" in str(error)
    assert (error.subject, error.limit) == ("split.count", 1024)
    assert error.offset is not None


def test_count_of_another_type(folder: Path) -> None:
    error = replace(folder, 0, shard(0, kind="float32"))
    assert "'split.count' is of type float32, wanted integer" in str(error)


def test_count_that_is_not_the_names(folder: Path) -> None:
    error = replace(folder, 0, shard(0, count=4))
    assert "not named <name>-00001-of-00004.gguf" in str(error)
    assert error.subject == "split.count"


@pytest.mark.parametrize(
    "name",
    [
        "model.gguf",
        "-00001-of-00003.gguf",
        "model-00004-of-00003.gguf",
        "model-00000-of-00003.gguf",
        "model-+0001-of-00003.gguf",
        "model-0001-of-0003.gguf",
        "model-00001_of_00003.gguf",
        "model-00001-of-00003.bin",
    ],
)
def test_names_without_the_pattern(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(shard(0).build())
    with pytest.raises(GGUFError, match="one of 3 shards, but is not named"):
        quantloom.open(tmp_path / name)


def test_contents_cannot_name_files(folder: Path, tmp_path: Path) -> None:
    """Only the name that the caller gave is used: no key of the file leads out of the folder."""
    builder = shard(0)
    builder.key("split.name", "string", "../../etc/passwd")
    builder.key("general.name", "string", "/etc/passwd")
    (folder / NAMES[0]).write_bytes(builder.build())
    with quantloom.open(folder / NAMES[0]) as file:
        assert list(file.tensors) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_wrong_number(folder: Path, number: int) -> None:
    error = replace(folder, number, shard(number, no=number + 1))
    assert f"'split.no' is {number + 1}, outside {number} to {number}" in str(error)
    assert error.subject == "split.no"


def test_shard_of_another_split(folder: Path) -> None:
    assert "'split.count' is 7, outside 3 to 3" in str(replace(folder, 2, shard(2, count=7)))


def test_shard_that_is_none(folder: Path) -> None:
    error = replace(folder, 1, Builder().tensor("b", "F32", (8,)))
    assert "metadata key 'split.count' is missing" in str(error)


@pytest.mark.parametrize("tensors", [4, 6, 2**31 - 1, -1])
def test_tensor_count(folder: Path, tensors: int) -> None:
    error = replace(folder, 0, shard(0, tensors=tensors))
    assert error.subject == "split.tensors.count"


def test_tensor_in_two_shards(folder: Path) -> None:
    error = replace(folder, 2, shard(2, names=["d", "b"]))
    assert "tensor 'b' occurs again" in str(error)
    assert error.subject == "b"


def test_shard_cut_short(folder: Path) -> None:
    data = shard(1).build()
    for size in (len(data) - 1, len(shard(1).header()), 30, 0):
        (folder / NAMES[1]).write_bytes(data[:size])
        with pytest.raises(GGUFError):
            quantloom.open(folder / NAMES[0])


def test_broken_shard_is_named(folder: Path) -> None:
    (folder / NAMES[2]).write_bytes(b"GGUF")
    with pytest.raises(GGUFError, match=NAMES[2]):
        quantloom.open(folder / NAMES[0])


def test_closing_lets_go_of_all_shards(folder: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system has no /proc/self/maps")
    file = quantloom.open(folder / NAMES[0])
    assert maps.read_text().count("-of-00003.gguf") == 3
    file.close()
    assert maps.read_text().count("-of-00003.gguf") == 0
