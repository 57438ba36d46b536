"""The writer's files are what the gguf package reads back, and appear only when complete."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

import quantloom
from quantloom.errors import FileError, InvalidArgument
from quantloom.gguf_writer import GGUFWriter
from quantloom.quantization import dequantize, quantize

VALUES: list[tuple[str, object, str | None, str]] = [
    ("u8", 200, "uint8", "UINT8"),
    ("i8", -100, "int8", "INT8"),
    ("u16", 65535, "uint16", "UINT16"),
    ("i16", -32768, "int16", "INT16"),
    ("u32", 4294967295, None, "UINT32"),
    ("i32", -7, None, "INT32"),
    ("f32", 0.5, None, "FLOAT32"),
    ("yes", True, None, "BOOL"),
    ("no", False, None, "BOOL"),
    ("text", "Grüße, 你好", None, "STRING"),
    ("empty", "", None, "STRING"),
    ("u64", 2**64 - 1, "uint64", "UINT64"),
    ("i64", -(2**63), "int64", "INT64"),
    ("big", 2**40, None, "INT64"),
    ("zero", 0, None, "UINT32"),
    ("above", 2**32, None, "INT64"),
    ("lowest", -(2**31), None, "INT32"),
    ("below", -(2**31) - 1, None, "INT64"),
    ("f64", 1e300, "float64", "FLOAT64"),
]


def written(path: Path, **metadata: object) -> GGUFReader:
    writer = GGUFWriter()
    for key, value in metadata.items():
        writer.add(key, value)
    writer.write(path)
    return GGUFReader(path)


def test_every_value_type(tmp_path: Path) -> None:
    writer = GGUFWriter()
    for key, value, kind, _ in VALUES:
        writer.add(key, value, kind)
    writer.write(tmp_path / "a.gguf")
    fields = GGUFReader(tmp_path / "a.gguf").fields
    for key, value, _, name in VALUES:
        assert fields[key].types[0].name == name
        assert fields[key].contents() == value, key


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.arange(5, dtype=np.uint8), "UINT8"),
        (np.arange(-2, 3, dtype=np.int16), "INT16"),
        (np.array([1.5, -2.5], np.float32), "FLOAT32"),
        (np.array([1.5, -2.5]), "FLOAT64"),
        (np.array([2**60, 1], np.uint64), "UINT64"),
        (np.array([True, False]), "BOOL"),
        ([1, 2, 3], "UINT32"),
        ([1, -2, 3], "INT32"),
        ([0.25, 0.5], "FLOAT32"),
        (["a", "", "ö"], "STRING"),
        ([True, True, False], "BOOL"),
        ([1, 2**33], "INT64"),
        ([-1, 2**32 - 1], "INT64"),
        ([np.int64(-1), 2**31 - 1], "INT32"),
        ([-(2**31), 0], "INT32"),
        ([-(2**31) - 1, 0], "INT64"),
        ([-1, 2**31], "INT64"),
        (np.array([1, 2], ">u4"), "UINT32"),
        (np.array([0.5, -2.0], ">f8"), "FLOAT64"),
        (np.array(["a", "ö"]), "STRING"),
        (np.array(["a", "ö"], object), "STRING"),
        (np.array([-1, 7], object), "INT32"),
    ],
)
def test_arrays(tmp_path: Path, value: object, name: str) -> None:
    field = written(tmp_path / "a.gguf", key=value).fields["key"]
    assert [kind.name for kind in field.types] == ["ARRAY", name]
    assert field.contents() == list(value)  # type: ignore[call-overload]


def test_empty_array(tmp_path: Path) -> None:
    writer = GGUFWriter()
    writer.add("merges", [], "string")
    writer.write(tmp_path / "a.gguf")
    record = b"merges" + np.array([9, 8], "<u4").tobytes() + bytes(8)
    assert record in (tmp_path / "a.gguf").read_bytes()


@pytest.mark.parametrize("alignment", [8, 32, 64, 4096])
def test_tensors_and_alignment(tmp_path: Path, alignment: int) -> None:
    values = np.random.default_rng(0).standard_normal((3, 5, 256)).astype(np.float32)
    blocks = quantize(values, "Q4_K")
    writer = GGUFWriter(alignment=alignment)
    writer.add("general.architecture", "none")
    writer.add_tensor("odd", np.arange(3, dtype=np.float32))
    writer.add_tensor("half", values[0].astype(np.float16))
    writer.add_tensor("blocks", blocks, shape=values.shape, format="Q4_K")
    pieces = [blocks[0], blocks[1].tobytes(), memoryview(blocks[2]).cast("B")]
    writer.add_tensor_chunks("pieces", values.shape, "Q4_K", lambda: iter(pieces))
    seen: list[tuple[int, int]] = []
    with pytest.raises(InvalidArgument, match="progress must be callable, not int"):
        writer.write(tmp_path / "a.gguf", progress=5)  # type: ignore[arg-type]
    writer.write(tmp_path / "a.gguf", progress=lambda done, total: seen.append((done, total)))

    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "a.gguf").tensors}
    assert list(tensors) == ["odd", "half", "blocks", "pieces"]
    for tensor in tensors.values():
        assert tensor.data_offset % alignment == 0
    np.testing.assert_array_equal(tensors["odd"].data, np.arange(3))
    np.testing.assert_array_equal(tensors["half"].data, values[0].astype(np.float16))
    for name in ("blocks", "pieces"):
        assert tensors[name].tensor_type.name == "Q4_K"
        assert list(tensors[name].shape) == [256, 5, 3]
        found = np.ascontiguousarray(tensors[name].data).view(np.uint8).reshape(blocks.shape)
        np.testing.assert_array_equal(dequantize(found, "Q4_K"), dequantize(blocks, "Q4_K"))
    total = 12 + values[0].size * 2 + 2 * blocks.nbytes
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    target.write_bytes(b"old")

    def broken() -> list[bytes]:
        raise KeyboardInterrupt

    writer = GGUFWriter()
    writer.add_tensor_chunks("a", (8,), "F32", broken)
    with pytest.raises(KeyboardInterrupt):
        writer.write(target)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.gguf"]


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_chunks_of_the_wrong_size(tmp_path: Path, size: int) -> None:
    writer = GGUFWriter()
    writer.add_tensor_chunks("a", (8,), "F32", lambda: [bytes(size)])
    with pytest.raises(InvalidArgument, match=f"a: {size} bytes came where its shape takes 32"):
        writer.write(tmp_path / "a.gguf")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([1.5, 2.7]), "uint32"),
        (np.array([np.nan]), "int32"),
        (np.array([np.inf]), "int64"),
        (np.array([1e300]), "uint8"),
        (np.array([-1.0]), "uint64"),
        (np.array([2.0**64]), "uint64"),
        (np.array([2.0**63]), "int64"),
        (np.array([1e300]), "float32"),
        (np.array([2.0, 0.0]), "bool"),
        (np.array([2**53 + 1]), "float64"),
        (np.array([2**64 - 1], np.uint64), "int64"),
        ([1.5], "uint32"),
        (1e300, "float32"),
        (2**24 + 1, "float32"),
        (5, "bool"),
        ("yes", "bool"),
    ],
)
def test_numbers_are_not_cut(values: object, kind: str) -> None:
    writer = GGUFWriter()
    with pytest.raises(InvalidArgument, match=f"key: .* does not fit {kind}") as caught:
        writer.add("key", values, kind)
    assert caught.value.subject == "key"


def test_an_integer_of_more_digits_than_python_prints() -> None:
    with pytest.raises(InvalidArgument, match="an integer of 16610 bits does not fit int64"):
        GGUFWriter().add("key", 10**5000)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (np.array([1.0, 255.0]), "uint8", [1, 255]),
        (np.array([-(2.0**63)]), "int64", [-(2**63)]),
        (np.array([1, 0]), "bool", [True, False]),
        (np.array([0.1]), "float32", [float(np.float32(0.1))]),
        (np.array([np.inf, -np.inf]), "float32", [np.inf, -np.inf]),
        (np.array([2**24, -3]), "float32", [2.0**24, -3.0]),
    ],
)
def test_numbers_that_fit_another_type(
    tmp_path: Path, values: object, kind: str, expected: list[object]
) -> None:
    writer = GGUFWriter()
    writer.add("key", values, kind)
    writer.write(tmp_path / "a.gguf")
    with quantloom.open(tmp_path / "a.gguf") as file:
        assert file.metadata.type("key") == f"{kind}[{len(expected)}]"
        assert list(file.metadata["key"]) == expected  # type: ignore[arg-type]


def test_an_alignment_key_aligns_the_tensors(tmp_path: Path) -> None:
    writer = GGUFWriter()
    writer.add_tensor("a", np.arange(3, dtype=np.float32))
    writer.add_tensor("b", np.arange(5, dtype=np.float32))
    writer.add("general.alignment", 128)
    writer.write(tmp_path / "a.gguf")
    with quantloom.open(tmp_path / "a.gguf") as file:
        assert file.alignment == 128
        assert file.tensors["b"].offset % 128 == 0
        np.testing.assert_array_equal(file.tensors["b"].dequantize(), np.arange(5))


@pytest.mark.parametrize(
    ("value", "kind"),
    [(24, None), (4, None), (2**21, None), ("64", None), ([64], None), (64, "uint64")],
)
def test_alignments_that_no_reader_takes(value: object, kind: str | None) -> None:
    with pytest.raises(InvalidArgument, match=r"general\.alignment"):
        GGUFWriter().add("general.alignment", value, kind)


def test_what_no_reader_takes_is_not_written() -> None:
    values = np.zeros(4, np.float32)
    for text in ("a\0b", "\ud800"):
        with pytest.raises(InvalidArgument, match="has a"):
            GGUFWriter().add(text, 1)
        with pytest.raises(InvalidArgument, match="has a"):
            GGUFWriter().add_tensor(text, values)
    for value in ("\ud800", ["a", "\ud800"]):
        with pytest.raises(InvalidArgument, match="unpaired surrogate"):
            GGUFWriter().add("key", value)
    with pytest.raises(InvalidArgument, match="above 16777216"):
        GGUFWriter().add("key", bytes(2**24 + 1))
    with pytest.raises(InvalidArgument, match="takes more than"):
        GGUFWriter().add_tensor_chunks("a", (2**62, 4), "F32", list)


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
def test_names_that_no_file_has(name: str) -> None:
    with pytest.raises(FileError, match="no file can have the name"):
        GGUFWriter().write(name)


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to("pipe")
    for name, code in (("pipe", errno.EINVAL), ("link", errno.EINVAL), (".", errno.EISDIR)):
        with pytest.raises(FileError, match="cannot write") as caught:
            GGUFWriter().write(tmp_path / name)
        assert caught.value.errno == code
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link = tmp_path / "model.gguf"
    link.symlink_to(Path("elsewhere") / "real.gguf")
    if exists:
        (folder / "real.gguf").write_bytes(b"old")
    GGUFWriter().write(link)
    assert link.is_symlink()
    assert (folder / "real.gguf").read_bytes().startswith(b"GGUF")
    assert os.listdir(folder) == ["real.gguf"]


@pytest.mark.parametrize("size", [237, 255])
def test_names_as_long_as_a_name_can_be(tmp_path: Path, size: int) -> None:
    name = "a" * (size - 5) + ".gguf"
    GGUFWriter().write(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(FileError, match="cannot write") as caught:
        GGUFWriter().write(tmp_path / ("a" * 256))
    assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("permissions", [0o600, 0o664, 0o444])
def test_a_replaced_file_hands_on_its_permissions(tmp_path: Path, permissions: int) -> None:
    target = tmp_path / "model.gguf"
    target.write_bytes(b"old")
    target.chmod(permissions)
    seen = []

    def chunks() -> list[bytes]:
        (part,) = tmp_path.glob(".*.part")
        seen.append(stat.S_IMODE(part.stat().st_mode))
        return [bytes(32)]

    writer = GGUFWriter()
    writer.add_tensor_chunks("a", (8,), "F32", chunks)
    writer.write(target)
    assert seen == [permissions] == [stat.S_IMODE(target.stat().st_mode)]
    assert target.read_bytes().startswith(b"GGUF")


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        GGUFWriter().write(tmp_path / "model.gguf")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.gguf").stat().st_mode) == 0o640


def test_links_that_go_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(FileError) as caught:
        GGUFWriter().write(tmp_path / "a")
    assert caught.value.errno == errno.ELOOP


def test_unwritable_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot write .*nowhere") as caught:
        GGUFWriter().write(tmp_path / "nowhere" / "a.gguf")
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.filename == str(tmp_path / "nowhere" / "a.gguf")


def test_bad_metadata() -> None:
    writer = GGUFWriter()
    writer.add("key", 1)
    cases: list[tuple[str, object, str | None, str]] = [
        ("key", 2, None, "key was added before"),
        ("", 2, None, "key '' has 0 bytes, not 1 to 65535"),
        ("k" * 65536, 2, None, "has 65536 bytes, not 1 to 65535"),
        ("a", 256, "uint8", "256 does not fit uint8"),
        ("a", -1, "uint64", "-1 does not fit uint64"),
        ("a", 1, "uint7", "no value type 'uint7'"),
        ("a", 1, "string", "1 is not a string"),
        ("a", None, None, "a NoneType has no GGUF type"),
        ("a", {"b": 1}, None, "a dict has no GGUF type"),
        ("a", [1, "b"], None, "an array of string and uint32"),
        ("a", [[1]], None, "a list has no GGUF type"),
        ("a", np.zeros((2, 2)), None, "an array of 2 dimensions"),
        ("a", np.array([1, 300]), "uint8", "300 does not fit uint8: integers from 0 to 255"),
        ("a", np.zeros(2, np.complex64), None, "no arrays of complex64"),
    ]
    for key, value, kind, message in cases:
        with pytest.raises(InvalidArgument, match=message):
            writer.add(key, value, kind)


def test_bad_tensors() -> None:
    writer = GGUFWriter()
    writer.add_tensor("a", np.zeros(4, np.float32))
    block = np.zeros(144, np.uint8)
    cases = [
        ("a", np.zeros(4, np.float32), None, None, "tensor a was added before"),
        ("", np.zeros(4, np.float32), None, None, "has 0 bytes, not 1 to 63"),
        ("n" * 64, np.zeros(4, np.float32), None, None, "has 64 bytes, not 1 to 63"),
        ("b", np.zeros(4), None, None, "float64 values need quantloom.quantize first"),
        ("b", block, None, "Q4_K", "blocks need the shape in weights"),
        ("b", block, (2, 256), "Q4_K", r"b: 144 bytes, where \(2, 256\) in Q4_K takes 288"),
        ("b", block, (255,), "Q4_K", "rows of 255 weights are not whole Q4_K blocks of 256"),
        ("b", block, (256,), "Q4_2", "Q4_2 is no longer part of GGUF"),
        ("b", block, (256,), "Q4_X", "'Q4_X' is no GGUF tensor type"),
        ("b", block, (1, 1, 1, 1, 256), "Q4_K", "is not 1 to 4 sizes"),
        ("b", block, (0, 256), "Q4_K", "is not 1 to 4 sizes"),
        ("b", block, (), "Q4_K", "is not 1 to 4 sizes"),
    ]
    for name, data, shape, format, message in cases:
        with pytest.raises(InvalidArgument, match=message):
            writer.add_tensor(name, data, shape=shape, format=format)
    with pytest.raises(InvalidArgument, match="alignment 24 is not a power of two"):
        GGUFWriter(alignment=24)


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (np.array([1, 2], ">f4"), "F32"),
        (np.array([1, 2], np.float16), "BF16"),
        (np.array([1, 2], np.float32), "I32"),
        (np.array([1], np.float64), "F32"),
        (np.array([1, 2], np.uint32), "F32"),
        (np.zeros(9, np.int16), "Q4_0"),
        (np.zeros(18, np.int8), "Q4_0"),
        (np.array([1, 2], object), "I64"),
        (memoryview(np.zeros(36, np.uint8))[::2], "Q4_0"),
    ],
)
def test_numbers_are_not_taken_for_bytes(tmp_path: Path, data: object, format: str) -> None:
    shape = (32,) if format == "Q4_0" else (np.asarray(data).nbytes // 4,)
    shape = (2,) if format in ("BF16", "I64") else shape
    writer = GGUFWriter()
    with pytest.raises(InvalidArgument, match="a: "):
        writer.add_tensor("a", data, shape=shape, format=format)  # type: ignore[arg-type]
    writer.add_tensor_chunks("a", shape, format, lambda: [data])  # type: ignore[list-item]
    with pytest.raises(InvalidArgument, match="a: "):
        writer.write(tmp_path / "a.gguf")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("format", ["F32", "F16", "F64", "I8", "I16", "I32", "I64"])
def test_plain_numbers_in_their_own_type(tmp_path: Path, format: str) -> None:
    dtype = {"F": "float", "I": "int"}[format[0]] + format[1:]
    values = np.array([[1, 2, 3], [-4, 5, 6]], dtype).T
    writer = GGUFWriter()
    writer.add_tensor("a", values, shape=(3, 2), format=format)
    writer.add_tensor("b", values.tobytes(), shape=(3, 2), format=format)  # type: ignore[arg-type]
    writer.add_tensor("c", (values[::-1].astype(np.float32)))
    bits = np.array([0x3F80, 0xC000], np.uint16)
    writer.add_tensor("d", bits, shape=(2,), format="BF16")
    writer.write(tmp_path / "a.gguf")
    with quantloom.open(tmp_path / "a.gguf") as file:
        for name in ("a", "b"):
            np.testing.assert_array_equal(file.tensors[name].dequantize(np.float64), values)
        np.testing.assert_array_equal(file.tensors["c"].dequantize(), values[::-1])
        np.testing.assert_array_equal(file.tensors["d"].dequantize(), [1, -2])


def test_data_of_another_kind() -> None:
    writer = GGUFWriter()
    with pytest.raises(InvalidArgument, match="data must be a NumPy array, not list"):
        writer.add_tensor("a", [[1.0, 2.0]])  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="shape must be an integer, not float"):
        writer.add_tensor("a", np.zeros(64, np.float32), shape=(2.5, 32))  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="hides values"):
        writer.add_tensor("a", np.ma.masked_array(np.zeros(2, np.float32), [True, False]))
    writer.add_tensor("a", bytes(18), shape=(32,), format="Q4_0")  # type: ignore[arg-type]
