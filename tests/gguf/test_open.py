"""`quantloom.open` on valid files: values, tensors, views, closing and what is shown."""

from __future__ import annotations

import copy
import errno
import gc
import os
import pickle
import re
import time
from pathlib import Path

import numpy as np
import pytest
from builder import SCALARS, TENSOR_TYPES, Builder, small_file
from hypothesis import given, settings
from hypothesis import strategies as st

import quantloom
from quantloom.errors import (
    Closed,
    FileError,
    GGUFError,
    InvalidArgument,
    ModelError,
    Unsupported,
)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    path.write_bytes(small_file().build())
    return path


def write(path: Path, builder: Builder) -> Path:
    path.write_bytes(builder.build())
    return path


def test_values(small: Path) -> None:
    with quantloom.open(small) as file:
        assert (file.version, file.alignment, file.architecture) == (3, 32, "llama")
        assert file.path == small
        for index, kind in enumerate(SCALARS):
            value = file.metadata[f"scalar.{kind}"]
            assert value == index % 2
            assert type(value) is {"bool": bool, "float32": float, "float64": float}.get(kind, int)
            array = file.metadata[f"array.{kind}"]
            assert isinstance(array, np.ndarray)
            assert array.dtype == np.dtype(kind)
            assert array.tolist() == [1, 0, 1]
            assert not array.flags.writeable
            assert file.metadata.type(f"array.{kind}") == f"{kind}[3]"
            assert file.metadata[f"empty.{kind}"].dtype == np.dtype(kind)
            assert file.metadata[f"empty.{kind}"].size == 0
        assert file.metadata["array.string"] == ["alpha", "", "\u03b2"]
        assert file.metadata["array.empty"] == []
        assert list(file.metadata)[:2] == ["general.architecture", "scalar.uint8"]
        assert "absent" not in file.metadata
        assert file.metadata.get("absent") is None
        with pytest.raises(KeyError):
            _ = file.metadata["absent"]


def test_tensors(small: Path) -> None:
    with quantloom.open(str(small)) as file:
        assert list(file.tensors) == ["token_embd.weight", "blk.0.ffn_up.weight"]
        tensor = file.tensors["token_embd.weight"]
        assert (tensor.shape, tensor.format, tensor.nbytes) == ((3, 4), "F32", 48)
        assert tensor.bytes.tolist() == list(range(48))
        assert small.read_bytes()[tensor.offset : tensor.offset + 48] == bytes(range(48))
        expected = np.frombuffer(bytes(range(48)), np.float32).reshape(3, 4)
        np.testing.assert_array_equal(tensor.dequantize(), expected)
        np.testing.assert_array_equal(np.asarray(tensor), expected)
        assert tensor.dequantize(np.float64).dtype == np.float64
        assert file.tensors["blk.0.ffn_up.weight"].shape == (2, 64)
        with pytest.raises(KeyError):
            _ = file.tensors["absent"]


def test_bytes_are_a_read_only_view(small: Path) -> None:
    file = quantloom.open(small)
    tensor = file.tensors["token_embd.weight"]
    first, second = tensor.bytes, tensor.bytes
    assert first.ctypes.data == second.ctypes.data
    assert not first.flags.writeable
    with pytest.raises(ValueError):
        first[0] = 1
    with pytest.raises(ValueError):
        first.flags.writeable = True


def test_every_tensor_type_is_listed(tmp_path: Path) -> None:
    builder = Builder()
    for name, (_, elements, _) in TENSOR_TYPES.items():
        builder.tensor(f"t.{name}", name, (2 * elements, 3))
    with quantloom.open(write(tmp_path / "types.gguf", builder)) as file:
        assert len(file.tensors) == len(TENSOR_TYPES)
        for name, (_, elements, size) in TENSOR_TYPES.items():
            tensor = file.tensors[f"t.{name}"]
            assert (tensor.format, tensor.nbytes, tensor.size) == (name, 6 * size, 6 * elements)
            if name in ("Q8_1", "Q8_K", "Q1_0"):
                with pytest.raises(ModelError, match=f"is of type {name}") as raised:
                    tensor.dequantize()
                assert raised.value.subject == tensor.name
            else:
                assert not tensor.dequantize().any()


@pytest.mark.parametrize("kind", ["I8", "I16", "I32", "I64", "F64"])
def test_plain_numbers(kind: str, tmp_path: Path) -> None:
    dtype = {"F64": "<f8"}.get(kind, f"<i{TENSOR_TYPES[kind][2]}")
    values = np.arange(-3, 5).astype(dtype)
    path = write(tmp_path / "plain.gguf", Builder().tensor("t", kind, (8,), values.tobytes()))
    with quantloom.open(path) as file:
        decoded = file.tensors["t"].dequantize(np.float64)
        assert decoded.tolist() == list(range(-3, 5))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [1, 32, 64, 2**20])
def test_versions_and_alignments(version: int, alignment: int, tmp_path: Path) -> None:
    path = write(tmp_path / "file.gguf", small_file(version=version, alignment=alignment))
    with quantloom.open(path) as file:
        assert (file.version, file.alignment) == (version, alignment)
        assert file.tensors["token_embd.weight"].bytes.tolist() == list(range(48))
        assert all(tensor.offset % alignment == 0 for tensor in file.tensors.values())


def test_header_alone_opens_without_data(tmp_path: Path) -> None:
    path = tmp_path / "table.gguf"
    path.write_bytes(Builder().tensor("t", "Q4_K", (256, 2)).header())
    with quantloom.open(path) as file:
        assert not file.has_data
        assert "header only" in repr(file)
        assert file.tensors["t"].shape == (2, 256)
        with pytest.raises(GGUFError, match="tensor 't' has no data") as raised:
            _ = file.tensors["t"].bytes
        assert raised.value.subject == "t"


def test_file_without_tensors_needs_no_padding(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(Builder(key_count=1).build()[:24] + b"\1" + bytes(7) + b"k\0\0\0\0\x07")
    with quantloom.open(path) as file:
        assert dict(file.metadata) == {"k": 7}


def test_text_that_is_not_utf8_comes_as_bytes(tmp_path: Path) -> None:
    builder = Builder().key("one", "string", b"caf\xe9")
    builder.key("many", "array:string", ["ok", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
    with quantloom.open(write(tmp_path / "latin.gguf", builder)) as file:
        assert file.metadata["one"] == b"caf\xe9"
        assert file.metadata["many"] == ["ok", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]
        assert repr(file.metadata)
    with quantloom.open(
        write(tmp_path / "a.gguf", Builder().key("general.architecture", "string", b"\xff"))
    ) as file:
        assert file.architecture is None


def test_any_byte_but_zero_is_true(tmp_path: Path) -> None:
    builder = Builder()
    builder.raw_key(b"\1" + bytes(7) + b"a" + b"\7\0\0\0" + b"\x62")
    builder.raw_key(
        b"\1" + bytes(7) + b"b" + b"\x09\0\0\0" + b"\7\0\0\0\3" + bytes(7) + b"\0\x80\1"
    )
    with quantloom.open(write(tmp_path / "bools.gguf", builder)) as file:
        assert file.metadata["a"] is True
        assert file.metadata["b"].view(np.uint8).tolist() == [0, 1, 1]


def test_closed(small: Path) -> None:
    file = quantloom.open(small)
    tensor, metadata = file.tensors["token_embd.weight"], file.metadata
    assert metadata["array.uint8"].tolist() == [1, 0, 1]
    view = tensor.bytes
    file.close()
    file.close()
    assert file.closed
    for use in (
        lambda: tensor.bytes,
        lambda: tensor.dequantize(),
        lambda: metadata["array.uint8"],
        lambda: file.tensors["token_embd.weight"],
        lambda: file.architecture,
    ):
        with pytest.raises(Closed, match=r"small\.gguf is closed"):
            use()
    for shown in (file, file.metadata, file.tensors):
        assert "closed" in repr(shown)
        assert shown._repr_html_()
    assert view.tolist() == list(range(48))


def mappings(path: Path) -> int:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system has no /proc/self/maps")
    return maps.read_text().count(str(path))


def test_mapping_and_descriptor_go_with_the_last_view(small: Path) -> None:
    file = quantloom.open(small)
    view = file.tensors["token_embd.weight"].bytes
    part = view[8:16]
    file.close()
    del view
    gc.collect()
    assert mappings(small) == 1
    del part
    gc.collect()
    assert mappings(small) == 0
    open_files = [
        os.readlink(f"/proc/self/fd/{n}")
        for n in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{n}")
    ]
    assert str(small) not in open_files


def test_failed_open_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(small_file().build()[:-1])
    with pytest.raises(GGUFError):
        quantloom.open(path)
    gc.collect()
    assert mappings(path) == 0


def test_file_changed_on_disk(small: Path) -> None:
    with quantloom.open(small) as file:
        with small.open("ab") as handle:
            handle.write(b"more")
        with pytest.raises(FileError, match="changed on disk"):
            _ = file.tensors["token_embd.weight"].bytes


def test_sparse_5_gb_file_opens_at_once(tmp_path: Path) -> None:
    path = tmp_path / "big.gguf"
    builder = Builder().key("general.architecture", "string", "llama")
    builder.key("tokenizer.ggml.tokens", "array:string", [f"token{i}" for i in range(150_000)])
    builder.tensor("small", "F32", (8,))
    size = 0
    from builder import data_size, tensor_record

    for index in range(300):
        dimensions = (4096, 4096)
        builder.tensors.append(tensor_record(f"blk.{index}.w", dimensions, 8, 32 + size))
        size += data_size("Q8_0", dimensions)
    header = builder.header()
    with path.open("wb") as handle:
        handle.write(header)
        handle.truncate(len(header) + 32 + size)
    assert path.stat().st_size > 5e9
    quantloom.open(path).close()
    times = []
    for _ in range(5):
        started = time.process_time()
        with quantloom.open(path) as file:
            repr(file), file.metadata._repr_html_(), file.tensors["blk.299.w"].shape
            times.append(time.process_time() - started)
    assert min(times) < 0.1
    with quantloom.open(path) as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
        assert len(tokens) == 150_000 and tokens[-1] == "token149999"
        assert not file.tensors["blk.299.w"].bytes[-100:].any()


def test_dimension_above_2_31(tmp_path: Path) -> None:
    """Row 20: such a tensor opens and is listed; narrow_to_int32 keeps it from the kernels."""
    path = tmp_path / "wide.gguf"
    header = Builder().raw_tensor(_record("wide", (2**31 + 32,))).header()
    with path.open("wb") as handle:
        handle.write(header)
        handle.truncate(len(header) + 2**31 + 32)
    with quantloom.open(path) as file:
        assert file.tensors["wide"].shape == (2**31 + 32,)
        assert file.tensors["wide"].bytes.size == 2**31 + 32


def _record(name: str, dimensions: tuple[int, ...]) -> bytes:
    from builder import tensor_record

    return tensor_record(name, dimensions, TENSOR_TYPES["I8"][0], 0)


def test_repr_shows_the_tables(small: Path) -> None:
    with quantloom.open(small) as file:
        assert repr(file) == (
            "<quantloom.File 'small.gguf': llama GGUF version 3, 36 keys, 2 tensors, "
            f"{small.stat().st_size / 1000:.1f} kB>"
        )
        assert repr(file.tensors["token_embd.weight"]) == (
            "<LazyTensor 'token_embd.weight': F32, 3 x 4, 48 B>"
        )
        assert re.search(r"general\.architecture +string +llama", repr(file.metadata))
        assert re.search(r"blk\.0\.ffn_up\.weight +Q4_0 +2 x 64 +72 B", repr(file.tensors))
        assert "<td>Q4_0</td>" in file._repr_html_()


def test_hostile_strings_are_escaped(tmp_path: Path) -> None:
    attack = "<script>alert('1')</script>"
    builder = Builder().key("general.architecture", "string", attack).key(attack, "string", attack)
    builder.key("terminal", "string", "\x1b[31mred\r\n\u202e")
    builder.key("list", "array:string", [attack]).tensor(attack, "F32", (8,))
    path = write(tmp_path / "<b>attack.gguf", builder)
    with quantloom.open(path) as file:
        shown = (file, file.metadata, file.tensors, file.tensors[attack])
        for item in shown:
            markup = item._repr_html_()
            assert "<script" not in markup and "<b>attack" not in markup
            for text in (repr(item), markup):
                assert "\x1b" not in text and "\r" not in text and "\u202e" not in text
        assert "&lt;script&gt;" in file._repr_html_()


def test_enormous_strings_are_shown_shortened(tmp_path: Path) -> None:
    builder = Builder().key("k" * 60_000, "string", "v" * 10**6)
    with quantloom.open(write(tmp_path / "long.gguf", builder)) as file:
        assert len(repr(file.metadata)) < 1000
        assert len(file.metadata._repr_html_()) < 1000


names = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12
).filter(lambda text: len(text.encode()) < 64)
integers = {
    "uint8": (0, 2**8 - 1),
    "int8": (-(2**7), 2**7 - 1),
    "uint16": (0, 2**16 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "uint32": (0, 2**32 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "uint64": (0, 2**64 - 1),
    "int64": (-(2**63), 2**63 - 1),
}
scalars = {kind: st.integers(low, high) for kind, (low, high) in integers.items()}
scalars["float32"] = st.floats(width=32, allow_nan=False)
scalars["float64"] = st.floats(allow_nan=False)
scalars["bool"] = st.booleans()
scalars["string"] = st.text(st.characters(exclude_categories=("Cs",)))
values = st.sampled_from(sorted(scalars)).flatmap(
    lambda kind: st.one_of(
        st.tuples(st.just(kind), scalars[kind]),
        st.tuples(st.just(f"array:{kind}"), st.lists(scalars[kind], max_size=5)),
    )
)
tensors = st.sampled_from(sorted(TENSOR_TYPES)).flatmap(
    lambda kind: st.tuples(
        st.just(kind),
        st.lists(st.integers(1, 3), min_size=1, max_size=4).map(
            lambda shape: (shape[0] * TENSOR_TYPES[kind][1], *shape[1:])
        ),
    )
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(names, values, max_size=8),
    st.dictionaries(names, tensors, max_size=6),
    st.sampled_from([1, 2, 8, 32, 256]),
    st.sampled_from([2, 3]),
    st.randoms(use_true_random=False),
)
def test_round_trip(tmp_path_factory, metadata, table, alignment, version, random) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("round") / "file.gguf"
    metadata.pop("general.alignment", None)
    builder = Builder(version=version, alignment=alignment)
    for key, (kind, value) in metadata.items():
        builder.key(key, kind, value)
    blocks = {}
    for name, (kind, dimensions) in table.items():
        _, elements, size = TENSOR_TYPES[kind]
        blocks[name] = random.randbytes(int(np.prod(dimensions)) // elements * size)
        builder.tensor(name, kind, dimensions, blocks[name])
    path.write_bytes(builder.build())
    with quantloom.open(path) as file:
        assert [key for key in file.metadata if key != "general.alignment"] == list(metadata)
        for key, (kind, value) in metadata.items():
            found = file.metadata[key]
            assert (found.tolist() if isinstance(found, np.ndarray) else found) == value
            assert file.metadata.type(key).split("[")[0] == kind.removeprefix("array:")
        assert list(file.tensors) == list(table)
        for name, (kind, dimensions) in table.items():
            tensor = file.tensors[name]
            assert (tensor.format, tensor.shape) == (kind, tuple(reversed(dimensions)))
            assert tensor.bytes.tobytes() == blocks[name]


def test_errors_of_the_system_say_which_and_what(tmp_path: Path) -> None:
    absent = tmp_path / "absent\udcff.gguf"
    for path, code in ((absent, errno.ENOENT), (tmp_path, errno.EISDIR)):
        with pytest.raises(FileError) as caught:
            quantloom.open(path)
        error = caught.value
        assert (error.errno, error.filename) == (code, str(path))
        assert error.strerror == os.strerror(code)
        assert isinstance(error, FileNotFoundError) == (code == errno.ENOENT)
        assert str(error).startswith("cannot open")
        for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert type(same) is type(error)
            assert (str(same), same.errno, same.filename) == (str(error), code, str(path))
            assert same.subject == error.subject


def test_a_file_that_has_changed_says_so_in_its_number(small: Path) -> None:
    with quantloom.open(small) as file:
        os.utime(small, ns=(1, 1))
        with pytest.raises(FileError) as caught:
            _ = next(iter(file.tensors.values())).bytes
    assert (caught.value.errno, caught.value.filename) == (errno.ESTALE, str(small))


def test_a_path_is_a_string_or_a_path() -> None:
    for path in (3, None, b"a.gguf", ["a"]):
        with pytest.raises(InvalidArgument, match="path must be a string or a path"):
            quantloom.open(path)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["owner/name:Q4_K_M", "owner/name-GGUF", "https://hub.example/owner/name/a.gguf"]
)
def test_what_is_no_file_but_of_the_hub_has_a_hint(name: str) -> None:
    for path in (name, Path(name)):
        with pytest.raises(FileNotFoundError, match="; `quantloom download owner/name") as caught:
            quantloom.open(path)
        assert isinstance(caught.value, FileError) and caught.value.errno == errno.ENOENT
        assert f"cannot open {name}: No such file" in str(caught.value)


def test_an_absent_file_has_no_hint(tmp_path: Path) -> None:
    for name in ("folder/name.gguf", str(tmp_path / "name"), "name"):
        with pytest.raises(FileNotFoundError) as caught:
            quantloom.open(name)
        assert "download" not in str(caught.value) and caught.value.filename == name


def test_a_tilde_is_the_users_folder(
    small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(small.parent))
    with quantloom.open(f"~/{small.name}") as file:
        assert file.path == small
    with pytest.raises(FileNotFoundError) as caught:
        quantloom.open("~/absent.gguf")
    assert caught.value.filename == str(small.parent / "absent.gguf")


def test_metadata_and_tensors_are_compared(tmp_path: Path) -> None:
    def pair(**changes: object) -> Path:
        values: dict[str, object] = {"kind": "array:float32", "value": [0.5, float("nan")]}
        values.update(changes)
        builder = Builder().key("a", str(values["kind"]), values["value"])
        builder.key("nan", "float32", float("nan")).key("s", "array:string", ["x", "y"])
        return write(tmp_path / f"{len(list(tmp_path.iterdir()))}.gguf", builder)

    first = pair()
    with quantloom.open(first) as file, quantloom.open(first) as again:
        assert file.metadata == again.metadata == dict(file.metadata)
        for other in (pair(value=[0.5, 1.0]), pair(value=[0.5]), pair(kind="float32", value=0.5)):
            with quantloom.open(other) as different:
                assert file.metadata != different.metadata
        assert file.metadata != {**file.metadata, "more": 1}
        assert file.metadata != 3
    with quantloom.open(pair(kind="array:int32", value=[1, 2])) as file:
        assert file.metadata == {**file.metadata, "a": [1, 2]}
        assert file.metadata != {**file.metadata, "a": ["x", "y"]}


def test_a_lazy_tensor_equals_itself(small: Path) -> None:
    with quantloom.open(small) as file, quantloom.open(small) as again:
        assert file.tensors == file.tensors and file.tensors != again.tensors
        first, second, *_ = file.tensors
        assert file.tensors[first] == file.tensors[first] != file.tensors[second]
        assert file.tensors[first] != again.tensors[first] and file.tensors[first] != 3
        assert len({file.tensors[first], file.tensors[first], file.tensors[second]}) == 2


def test_keys_are_completed_in_notebooks(small: Path) -> None:
    with quantloom.open(small) as file:
        for mapping in (file.metadata, file.tensors):
            assert mapping._ipython_key_completions_() == list(mapping)


def test_parts_of_a_file_are_not_pickled(small: Path) -> None:
    with quantloom.open(small) as file:
        for part in (file.metadata, file.tensors, next(iter(file.tensors.values()))):
            for call in (copy.deepcopy, pickle.dumps):
                with pytest.raises(Unsupported, match="belongs to an open file is not pickled"):
                    call(part)
        assert copy.copy(file.metadata) == file.metadata
        assert pickle.loads(pickle.dumps(dict(file.metadata))).keys() == file.metadata.keys()


def test_a_file_is_not_copied(small: Path) -> None:
    with quantloom.open(small) as file:
        for call in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(Unsupported, match="a File is not copied or pickled"):
                call(file)


def test_quantizing_what_is_aligned_to_less_than_eight(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    values = np.linspace(-1, 1, 512, dtype=np.float32)
    builder = Builder(alignment=4)
    builder.tensor("blk.0.ffn_up.weight", "F32", (256, 2), values.tobytes())
    path.write_bytes(builder.build())
    quantloom.quantize_file(path, tmp_path / "b.gguf", "Q8_0")
    with quantloom.open(tmp_path / "b.gguf") as file:
        assert file.alignment == 8
        found = file.tensors["blk.0.ffn_up.weight"].dequantize()
    assert np.abs(found.reshape(-1) - values).max() < 0.01
