"""File to file: the mixes choose as llama.cpp's do, and everything but the weights is kept."""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from quantloom.errors import FileError, GGUFError, InvalidArgument, NumericsError
from quantloom.gguf_writer import GGUFWriter
from quantloom.mixes import MIXES, Model, Source, choose, gets_more_bits, is_quantized
from quantloom.quantization import dequantize, quantize, quantize_file

LAYERS = 8


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def write_model(
    path: Path, *, width: int = 256, tied: bool = False, dtype: str = "float32", experts: int = 0
) -> None:
    writer = GGUFWriter()
    writer.add("general.architecture", "llama")
    writer.add("general.name", "a test")
    writer.add("general.file_type", 0)
    writer.add("llama.block_count", LAYERS)
    writer.add("llama.rope.freq_base", 10000.0)
    writer.add("tokenizer.ggml.tokens", ["a", "b", "ß"])
    writer.add("tokenizer.ggml.scores", np.array([0.5, -1.0, 0.0], np.float32))
    writer.add("custom.small", 7, "uint8")
    if experts:
        writer.add("llama.expert_count", experts)
    writer.add_tensor("token_embd.weight", weights(48, width).astype(dtype))
    writer.add_tensor("output_norm.weight", weights(width))
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up"):
            writer.add_tensor(f"{block}{name}.weight", weights(24, width, seed=layer).astype(dtype))
        writer.add_tensor(f"{block}ffn_down.weight", weights(24, width, seed=layer).astype(dtype))
        writer.add_tensor(f"{block}attn_norm.weight", weights(width, seed=layer))
        writer.add_tensor(f"{block}attn_q.bias", weights(width, seed=layer))
        writer.add_tensor(f"{block}ffn_gate_inp.weight", weights(4, width, seed=layer))
    if not tied:
        writer.add_tensor("output.weight", weights(48, width).astype(dtype))
    writer.write(path)


def formats_of(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


def metadata_of(path: Path) -> dict[str, tuple[list[str], object]]:
    return {
        key: ([kind.name for kind in field.types], field.contents())
        for key, field in GGUFReader(path).fields.items()
        if not key.startswith("GGUF.")
    }


@pytest.mark.parametrize("mix", sorted(MIXES))
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_and_metadata(tmp_path: Path, mix: str, dtype: str) -> None:
    source, target = tmp_path / "a.gguf", tmp_path / "b.gguf"
    write_model(source, dtype=dtype)
    progress: list[tuple[int, int]] = []
    summary = quantize_file(source, target, mix, lambda *step: progress.append(step))
    before = {tensor.name: tensor for tensor in GGUFReader(source).tensors}
    after = {tensor.name: tensor for tensor in GGUFReader(target).tensors}
    assert list(before) == list(after)
    for name, tensor in after.items():
        values = np.asarray(before[name].data, np.float32)
        assert list(tensor.shape) == list(before[name].shape)
        if is_quantized(Source(name, values.shape)):
            expected = quantize(values, tensor.tensor_type.name)
        else:
            assert tensor.tensor_type == before[name].tensor_type
            expected = np.ascontiguousarray(before[name].data).view(np.uint8)
        found = np.ascontiguousarray(tensor.data).view(np.uint8)
        np.testing.assert_array_equal(found.reshape(-1), expected.reshape(-1))

    old, new = metadata_of(source), metadata_of(target)
    assert new.pop("general.file_type") == (["UINT32"], MIXES[mix].file_type)
    assert new.pop("general.quantization_version") == (["UINT32"], 2)
    del old["general.file_type"]
    assert new == old
    assert summary.mix == mix
    assert sum(summary.formats.values()) == len(after)
    assert summary.notes == []
    assert progress[-1][0] == progress[-1][1] == summary.target_bytes
    assert summary.source_bytes == sum(tensor.n_bytes for tensor in before.values())
    assert sorted(os.listdir(tmp_path)) == ["a.gguf", "b.gguf"]


def test_q4_k_m_gives_more_bits_to_some_layers(tmp_path: Path) -> None:
    write_model(tmp_path / "a.gguf")
    quantize_file(tmp_path / "a.gguf", tmp_path / "b.gguf", "q4_k_m")
    found = formats_of(tmp_path / "b.gguf")
    assert found["output.weight"] == "Q6_K"
    assert found["token_embd.weight"] == "Q4_K"
    for layer in range(LAYERS):
        better = layer in (0, 3, 6, 7)
        for name in ("attn_v", "ffn_down"):
            assert found[f"blk.{layer}.{name}.weight"] == ("Q6_K" if better else "Q4_K")
        for name in ("attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"):
            assert found[f"blk.{layer}.{name}.weight"] == "Q4_K"
        for name in ("attn_norm.weight", "attn_q.bias", "ffn_gate_inp.weight"):
            assert found[f"blk.{layer}.{name}"] == "F32"


def test_layers_with_more_bits() -> None:
    """Counted by hand from the rule for the sizes of well-known models."""
    chosen = {count: [i for i in range(count) if gets_more_bits(i, count)] for count in (16, 32)}
    assert chosen[16] == [0, 1, 4, 7, 10, 13, 14, 15]
    assert chosen[32] == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]


@pytest.mark.parametrize("mix", ["Q4_K_M", "Q5_K_M", "Q6_K", "Q4_0", "Q8_0"])
def test_tied_embedding_counts_as_output(tmp_path: Path, mix: str) -> None:
    write_model(tmp_path / "a.gguf", tied=True)
    quantize_file(tmp_path / "a.gguf", tmp_path / "b.gguf", mix)
    expected = "Q8_0" if mix == "Q8_0" else "Q6_K"
    assert formats_of(tmp_path / "b.gguf")["token_embd.weight"] == expected


def test_narrow_rows_fall_back_and_are_noted(tmp_path: Path) -> None:
    write_model(tmp_path / "a.gguf", width=96)
    summary = quantize_file(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_K_M")
    found = formats_of(tmp_path / "b.gguf")
    assert found["output.weight"] == "Q8_0"
    assert found["blk.0.attn_v.weight"] == "Q8_0"  # for Q6_K
    assert found["blk.1.attn_v.weight"] == "Q5_0"  # for Q4_K
    note = "blk.1.attn_v.weight is Q5_0: rows of 96 are not whole Q4_K blocks of 256"
    assert note in summary.notes
    write_model(tmp_path / "c.gguf", width=40)
    summary = quantize_file(tmp_path / "c.gguf", tmp_path / "d.gguf", "Q5_K_M")
    assert set(formats_of(tmp_path / "d.gguf").values()) == {"F16", "F32"}
    assert len(summary.notes) == 7 * LAYERS + 2


def test_eight_experts(tmp_path: Path) -> None:
    write_model(tmp_path / "a.gguf", experts=8)
    quantize_file(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_K_M")
    found = formats_of(tmp_path / "b.gguf")
    for layer in range(LAYERS):
        assert found[f"blk.{layer}.attn_k.weight"] == "Q8_0"
        assert found[f"blk.{layer}.attn_v.weight"] == "Q8_0"
        assert found[f"blk.{layer}.attn_output.weight"] == "Q5_K"


def test_shared_values_of_large_models() -> None:
    tensors = [Source(f"blk.{layer}.attn_v.weight", (1024, 8192)) for layer in range(80)]
    grouped = Model("llama", blocks=80, experts=0, heads=64, kv_heads=8)
    single = Model("llama", blocks=80, experts=0, heads=64, kv_heads=64)
    assert choose(MIXES["Q4_K_M"], grouped, tensors, [])[11] == "Q5_K"
    assert choose(MIXES["Q4_K_M"], single, tensors, [])[11] == "Q4_K"
    assert choose(MIXES["Q4_K_M"], grouped, tensors, [])[0] == "Q6_K"


@pytest.mark.parametrize(
    ("mix", "name"), [("Q4_K_M", "q4_k_m"), ("Q5_K_M", "q5_k_m"), ("Q6_K", "q6_k")]
)
def test_choices_are_those_of_llama_cpp(shared_data, mix: str, name: str) -> None:
    reader = GGUFReader(shared_data / "models" / f"stories260K-pad256-{name}.gguf")
    tensors = [
        Source(tensor.name, tuple(int(extent) for extent in reversed(tensor.shape)))
        for tensor in reader.tensors
    ]
    model = Model("llama", blocks=5, experts=0, heads=8, kv_heads=4)
    chosen = choose(MIXES[mix], model, tensors, [])
    for tensor, format in zip(reader.tensors, chosen, strict=True):
        assert (format or "F32") == tensor.tensor_type.name, tensor.name


def test_real_file(shared_data, tmp_path: Path) -> None:
    source = shared_data / "models" / "stories260K-f32.gguf"
    target = tmp_path / "b.gguf"
    summary = quantize_file(source, target, "Q8_0")
    assert summary.formats["Q8_0"] > 20
    assert metadata_of(target).keys() - {"general.quantization_version"} <= metadata_of(
        source
    ).keys() | {"general.file_type"}
    expected = formats_of(shared_data / "models" / "stories260K-q8_0.gguf")
    assert formats_of(target) == expected


def test_quantized_sources(tmp_path: Path) -> None:
    write_model(tmp_path / "a.gguf")
    quantize_file(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q8_0")
    with pytest.raises(InvalidArgument, match=r"token_embd.weight is quantized already \(Q8_0\)"):
        quantize_file(tmp_path / "b.gguf", tmp_path / "c.gguf", "Q4_0")
    assert not (tmp_path / "c.gguf").exists()
    quantize_file(tmp_path / "b.gguf", tmp_path / "c.gguf", "Q4_0", allow_requantize=True)
    assert formats_of(tmp_path / "c.gguf")["blk.0.attn_q.weight"] == "Q4_0"


def test_bad_values_name_the_tensor(tmp_path: Path) -> None:
    writer = GGUFWriter()
    values = weights(4, 256)
    values[2, 3] = np.nan
    writer.add_tensor("blk.0.ffn_up.weight", values)
    writer.write(tmp_path / "a.gguf")
    with pytest.raises(NumericsError, match=r"blk.0.ffn_up.weight .*value 515 is nan"):
        quantize_file(tmp_path / "a.gguf", tmp_path / "b.gguf")
    assert os.listdir(tmp_path) == ["a.gguf"]


def test_bad_arguments(tmp_path: Path) -> None:
    write_model(tmp_path / "a.gguf")
    for options, message in (
        ({"allow_requantize": "no"}, "allow_requantize must be True or False, not 'no'"),
        ({"progress": 5}, "progress must be callable, not int"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            quantize_file(tmp_path / "a.gguf", tmp_path / "b.gguf", **options)  # type: ignore[arg-type]
        assert os.listdir(tmp_path) == ["a.gguf"]
    with pytest.raises(InvalidArgument, match="no mix 'Q9'; there are Q4_0, Q8_0, Q4_K_M"):
        quantize_file(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q9")
    with pytest.raises(InvalidArgument, match="the same file"):
        quantize_file(tmp_path / "a.gguf", tmp_path / "a.gguf")
    with pytest.raises(FileError):
        quantize_file(tmp_path / "none.gguf", tmp_path / "b.gguf")
    (tmp_path / "there.gguf").write_bytes(b"another file")
    with pytest.raises(FileError, match=r"none\.gguf"):
        quantize_file(tmp_path / "none.gguf", tmp_path / "there.gguf")
    with pytest.raises(FileError):
        quantize_file(tmp_path / "a.gguf", tmp_path / "b\0.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(GGUFError):
        quantize_file(tmp_path / "bad.gguf", tmp_path / "b.gguf")


def test_other_types_are_copied(tmp_path: Path) -> None:
    writer = GGUFWriter(alignment=64)
    table = np.arange(512, dtype=np.int32).reshape(2, 256)
    writer.add_tensor("blk.0.table.weight", table)
    writer.add_tensor("blk.0.ffn_up.weight", weights(2, 2, 256))
    writer.write(tmp_path / "a.gguf")
    summary = quantize_file(tmp_path / "a.gguf", tmp_path / "b.gguf")
    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "b.gguf").tensors}
    np.testing.assert_array_equal(tensors["blk.0.table.weight"].data, table)
    assert tensors["blk.0.ffn_up.weight"].tensor_type.name == "Q4_K"
    found = np.ascontiguousarray(tensors["blk.0.ffn_up.weight"].data).view(np.uint8)
    decoded = dequantize(found.reshape(-1), "Q4_K").reshape(2, 2, 256)
    assert np.sqrt(np.mean((decoded - weights(2, 2, 256)) ** 2)) < 0.1
    assert summary.notes == ["blk.0.table.weight stays I32: not a weight format"]
    assert metadata_of(tmp_path / "b.gguf")["general.alignment"] == (["UINT32"], 64)


def test_a_pipe_is_no_target(tmp_path: Path) -> None:
    write_model(tmp_path / "a.gguf")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="not a regular file"):
        quantize_file(tmp_path / "a.gguf", tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


def test_a_link_to_the_source_is_the_source(tmp_path: Path) -> None:
    write_model(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").symlink_to("a.gguf")
    with pytest.raises(InvalidArgument, match="the same file"):
        quantize_file(tmp_path / "a.gguf", tmp_path / "b.gguf")


@pytest.mark.parametrize("source", [0, 1])
def test_no_part_of_a_split_source_is_the_target(tmp_path: Path, source: int) -> None:
    names = ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"]
    for number, name in enumerate(names):
        writer = GGUFWriter()
        writer.add("split.no", number, "uint16")
        writer.add("split.count", 2, "uint16")
        writer.add("split.tensors.count", 2, "int32")
        writer.add_tensor(f"blk.{number}.ffn_up.weight", weights(4, 256))
        writer.write(tmp_path / name)
    before = [(tmp_path / name).read_bytes() for name in names]
    (tmp_path / "link.gguf").symlink_to(names[1 - source])
    for target in (names[1 - source], "link.gguf"):
        with pytest.raises(InvalidArgument, match="source and target are files of one model: a-0"):
            quantize_file(tmp_path / names[source], tmp_path / target)
    with pytest.raises(InvalidArgument, match="the same file"):
        quantize_file(tmp_path / names[source], tmp_path / names[source])
    assert [(tmp_path / name).read_bytes() for name in names] == before
    quantize_file(tmp_path / names[source], tmp_path / "a-00001-of-00003.gguf")


@pytest.mark.parametrize(
    "heads",
    [
        np.zeros(0, np.uint32),
        np.array([np.nan], np.float32),
        np.array([np.inf]),
        1.5,
        "many",
        ["many", b"\xff"],
    ],
)
def test_a_number_of_heads_that_is_none(tmp_path: Path, heads: object) -> None:
    """The rules ask for it in some models; one that is no number is as none."""
    writer = GGUFWriter()
    writer.add("general.architecture", "llama")
    writer.add("llama.attention.head_count_kv", heads)
    writer.add_tensor("blk.0.attn_v.weight", weights(4, 256))
    writer.write(tmp_path / "a.gguf")
    assert quantize_file(tmp_path / "a.gguf", tmp_path / "b.gguf").formats == {"Q6_K": 1}


def test_an_absent_source_beside_a_target_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "b.gguf").write_bytes(b"old")
    with pytest.raises(FileError, match="none"):
        quantize_file(tmp_path / "none.gguf", tmp_path / "b.gguf")


@pytest.mark.parametrize(
    ("name", "value"),
    [("threads", -1), ("threads", 10**12), ("threads", "2"), ("threads", None), ("mix", None)],
)
def test_arguments_outside_their_range(tmp_path: Path, name: str, value: Any) -> None:
    write_model(tmp_path / "a.gguf")
    calls = [partial(quantize_file, tmp_path / "a.gguf", tmp_path / "b.gguf")]
    if name == "threads":
        calls.append(partial(quantize, weights(1, 32), "Q4_0"))
        calls.append(partial(dequantize, bytes(18), "Q4_0"))
    for call in calls:
        with pytest.raises(InvalidArgument, match=name) as caught:
            call(**{name: value})
        assert caught.value.subject == name
    assert os.listdir(tmp_path) == ["a.gguf"]


def test_names_that_no_file_has(tmp_path: Path) -> None:
    write_model(tmp_path / "a.gguf")
    for source, target in (("a\0b", "b"), (tmp_path / "a.gguf", "a\0b"), (tmp_path / "a.gguf", "")):
        with pytest.raises(FileError, match="no file can have the name"):
            quantize_file(source, target)


def test_what_is_no_array() -> None:
    for call in (
        lambda: quantize([[1.0], [2.0, 3.0]], "Q4_0"),  # type: ignore[list-item]
        lambda: quantize(np.ma.masked_array(weights(1, 32), weights(1, 32) > 0), "Q4_0"),
        lambda: dequantize([1, 2], "Q4_0"),  # type: ignore[arg-type]
        lambda: quantize(weights(1, 32), []),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidArgument):
            call()
