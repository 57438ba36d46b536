"""The C++ decoders, the NumPy ones and the gguf package give the same bits, whatever the bytes."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGUFReader
from gguf import quants as gguf_quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from quantloom import reference
from quantloom.errors import InvalidArgument
from quantloom.formats import FORMATS, TYPES, tensor_type
from quantloom.quantization import dequantize
from same_bits import assert_same_bits

NAMES = sorted(FORMATS)


def random_blocks(name: str, count: int, seed: int = 0) -> np.ndarray:
    shape = (count, FORMATS[name].bytes)
    return np.random.default_rng([seed, FORMATS[name].id]).integers(0, 256, shape, np.uint8)


def third_party(blocks: np.ndarray, name: str) -> np.ndarray:
    kind = GGMLQuantizationType[name]
    with np.errstate(all="ignore"):
        values = gguf_quants.dequantize(blocks.reshape(-1), kind)
    return np.asarray(values, np.float32).reshape(blocks.shape[0], FORMATS[name].elements)


def test_reference_has_every_format() -> None:
    assert set(reference.FORMATS) == set(FORMATS)
    for name, layout in reference.FORMATS.items():
        assert (layout.elements, layout.bytes) == (FORMATS[name].elements, FORMATS[name].bytes)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_the_file_formats(name: str) -> None:
    elements, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    assert (FORMATS[name].elements, FORMATS[name].bytes) == (elements, size)
    assert FORMATS[name].id == GGMLQuantizationType[name].value


@pytest.mark.parametrize("name", NAMES)
def test_random_bits(name: str) -> None:
    blocks = random_blocks(name, 4000)
    expected = reference.dequantize(blocks, name)
    assert_same_bits(dequantize(blocks, name), expected)
    assert_same_bits(third_party(blocks, name), expected)


@pytest.mark.parametrize("name", NAMES)
def test_every_pattern_of_each_byte(name: str) -> None:
    size = FORMATS[name].bytes
    background = random_blocks(name, 1, seed=1)[0]
    blocks = np.repeat(background[None], 256 * size, axis=0)
    index = np.arange(256 * size)
    blocks[index, index // 256] = index % 256
    assert_same_bits(dequantize(blocks, name), reference.dequantize(blocks, name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fill", [0, 255])
def test_zeros_and_ones(name: str, fill: int) -> None:
    blocks = np.full((3, FORMATS[name].bytes), fill, np.uint8)
    expected = reference.dequantize(blocks, name)
    assert_same_bits(dequantize(blocks, name), expected)
    assert_same_bits(third_party(blocks, name), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 3, 17, 63, 64, 65, 1025])
def test_counts_and_threads(name: str, count: int) -> None:
    blocks = random_blocks(name, count, seed=count)
    whole = reference.dequantize(blocks, name)
    for threads in (1, 2, 7):
        assert_same_bits(dequantize(blocks, name, threads=threads), whole)


@pytest.mark.parametrize("name", NAMES)
def test_rows_keep_their_shape(name: str) -> None:
    kind = FORMATS[name]
    blocks = random_blocks(name, 24).reshape(2, 3, 4 * kind.bytes)
    values = dequantize(blocks, name)
    assert values.shape == (2, 3, 4 * kind.elements)
    assert_same_bits(values, reference.dequantize(blocks, name))
    assert_same_bits(
        dequantize(blocks.tobytes(), name), reference.dequantize(blocks.tobytes(), name)
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_blocks(name: str) -> None:
    for shape in ((0,), (0, FORMATS[name].bytes), (3, 0)):
        blocks = np.zeros(shape, np.uint8)
        expected = (*shape[:-1], shape[-1] // FORMATS[name].bytes * FORMATS[name].elements)
        for decode in (dequantize, reference.dequantize):
            assert decode(blocks, name).shape == expected
            assert decode(blocks, name).dtype == np.float32
    assert dequantize(b"", name).shape == reference.dequantize(b"", name).shape == (0,)


def test_what_is_no_bytes_or_no_format() -> None:
    for decode in (dequantize, reference.dequantize):
        assert decode(bytes(18), "q4_0").shape == (32,)
        for blocks in ([1] * 18, "x" * 18, np.zeros(18, np.int8), memoryview(bytes(36))[::2], None):
            with pytest.raises(InvalidArgument) as caught:
                decode(blocks, "Q4_0")  # type: ignore[arg-type]
            assert caught.value.subject == "blocks"
        with pytest.raises(InvalidArgument, match="hides values"):
            decode(np.ma.masked_array(np.zeros(18, np.uint8), [1] + [0] * 17), "Q4_0")
        for format in (["Q4_0"], None, 2.5):
            with pytest.raises(InvalidArgument) as caught:
                decode(bytes(18), format)  # type: ignore[arg-type]
            assert caught.value.subject == "format"


@pytest.mark.parametrize("name", NAMES)
def test_blocks_at_odd_addresses(name: str) -> None:
    blocks = random_blocks(name, 40)
    shifted = np.empty(blocks.size + 1, np.uint8)[1:]
    shifted[:] = blocks.reshape(-1)
    assert_same_bits(dequantize(shifted, name), reference.dequantize(blocks.reshape(-1), name))


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_block_are_refused(name: str) -> None:
    kind = FORMATS[name]
    if kind.bytes == 1:
        pytest.skip("no part of a block is possible")
    for size in (1, kind.bytes - 1, kind.bytes + 1):
        part = np.zeros(size, np.uint8)
        for decode in (dequantize, reference.dequantize):
            with pytest.raises(InvalidArgument, match=f"{name} blocks of {kind.bytes}") as caught:
                decode(part, name)
            assert caught.value.limit == kind.bytes
            assert caught.value.subject == "blocks"


@pytest.mark.parametrize("name", sorted(set(TYPES) - set(FORMATS)))
def test_types_without_a_decoder_are_refused(name: str) -> None:
    for decode in (dequantize, reference.dequantize):
        with pytest.raises(InvalidArgument, match="decoder"):
            decode(np.zeros(1024, np.uint8), name)


def test_type_table() -> None:
    assert [TYPES[name].id for name in TYPES] == list(range(43))
    removed = {kind.id for kind in TYPES.values() if kind.state == "removed"}
    assert removed == {4, 5, 31, 32, 33, 36, 37, 38}
    known = {name for name, kind in TYPES.items() if kind.state == "known"}
    assert known == {"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64", "Q1_0", "Q2_0"}
    for kind in GGMLQuantizationType:
        # Q8_1's size in the gguf package is of an older layout; ggml's block is two halves and 32.
        if kind.name != "Q8_1":
            entry = tensor_type(kind.value)
            assert (entry.name, (entry.elements, entry.bytes)) == (
                kind.name,
                GGML_QUANT_SIZES[kind],
            )
    assert tensor_type("q4_k") is FORMATS["Q4_K"]
    assert tensor_type(np.int64(12)) is FORMATS["Q4_K"]  # type: ignore[arg-type]
    for missing in (43, -1, 2**32, "Q9_K", 12.0, True, None, [12], np.array([1, 2])):
        with pytest.raises(InvalidArgument, match="no GGUF tensor type"):
            tensor_type(missing)  # type: ignore[arg-type]
    assert FORMATS["Q4_0"].row_bytes(64) == 36
    for elements in (-32, 33, 32.0):
        with pytest.raises(InvalidArgument):
            FORMATS["Q4_0"].row_bytes(elements)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_all_halves(kind: str) -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.uint8)
    assert_same_bits(dequantize(halves, kind), reference.dequantize(halves, kind))
    finite = reference.dequantize(halves, "F16")
    np.testing.assert_array_equal(finite, np.arange(65536, dtype=np.uint16).view(np.float16))


def test_real_tensors(shared_data) -> None:
    seen: set[str] = set()
    for path in sorted((shared_data / "models").glob("*.gguf")):
        for tensor in GGUFReader(path).tensors:
            name = tensor.tensor_type.name
            blocks = np.ascontiguousarray(tensor.data).view(np.uint8)
            blocks = blocks.reshape(-1, FORMATS[name].bytes)
            expected = reference.dequantize(blocks, name)
            assert_same_bits(dequantize(blocks, name), expected)
            assert_same_bits(third_party(blocks, name), expected)
            seen.add(name)
    assert seen >= {"F32", "F16", "Q4_0", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
    assert seen >= {"IQ3_S", "IQ4_XS", "TQ1_0", "TQ2_0"}
