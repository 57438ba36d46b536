"""The operations on the GPU, with the checks that the CPU passes."""

from __future__ import annotations

import pytest

from operations import cases, checks

DEVICE = "cuda"


@pytest.mark.parametrize(("rows", "width"), cases.NORMS)
def test_norm(rows: int, width: int) -> None:
    checks.check_norm(DEVICE, rows, width)


@pytest.mark.parametrize(("format", "columns"), cases.EMBEDS)
def test_embed(format: str, columns: int) -> None:
    checks.check_embed(DEVICE, format, columns)


@pytest.mark.parametrize("format", cases.QUANTIZED)
def test_embed_random_bits(format: str) -> None:
    checks.check_embed_random_bits(DEVICE, format)


@pytest.mark.parametrize("tokens", cases.PROJECTION_TOKENS)
@pytest.mark.parametrize("format", cases.PROJECTION_FORMATS)
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_projections(precision: str, format: str, tokens: int) -> None:
    checks.check_projections(DEVICE, precision, format, tokens)


@pytest.mark.parametrize("tokens", [1, 7, 40, 300])
@pytest.mark.parametrize(("formats", "rows", "columns"), cases.MIXED)
def test_mixed_projections(formats: list[str], rows: list[int], columns: int, tokens: int) -> None:
    checks.check_mixed_projections(DEVICE, formats, rows, columns, tokens)


@pytest.mark.parametrize(("tokens", "length"), cases.FEED_FORWARDS)
@pytest.mark.parametrize("format", ["Q8_0", "Q5_0"])
def test_feed_forward(format: str, tokens: int, length: int) -> None:
    checks.check_feed_forward(DEVICE, format, tokens, length)


@pytest.mark.parametrize("tokens", cases.GATE_TOKENS)
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("format", ["Q4_K", "Q8_0"])
def test_gate_up(format: str, activation: str, tokens: int) -> None:
    checks.check_gate_up(DEVICE, format, activation, tokens)


@pytest.mark.parametrize("tokens", [1, 3, 8])
@pytest.mark.parametrize("columns", [256, 2816, 8448])
def test_gate_up_over_columns(columns: int, tokens: int) -> None:
    """Columns that one warp has, that leave warps without, and that are cut into slices."""
    checks.check_gate_up(DEVICE, "Q4_K", "silu", tokens, columns)


@pytest.mark.parametrize("tokens", cases.TILE_BORDERS)
def test_borders_of_tiles(tokens: int) -> None:
    checks.check_tile_border(DEVICE, tokens)


@pytest.mark.parametrize("tokens", [9, 65])
@pytest.mark.parametrize("format", cases.QUANTIZED)
def test_formats(format: str, tokens: int) -> None:
    checks.check_format(DEVICE, format, tokens)


@pytest.mark.parametrize("count", [1, 7, 1000, 70001])
def test_elementwise(count: int) -> None:
    checks.check_elementwise(DEVICE, count)


@pytest.mark.parametrize("name", cases.ATTENTIONS)
def test_attention(name: str) -> None:
    checks.check_attention(DEVICE, **cases.ATTENTIONS[name])


@pytest.mark.parametrize("tokens", cases.ATTENTION_BORDERS)
def test_attention_at_borders_of_tiles(tokens: int) -> None:
    checks.check_attention(DEVICE, tokens=tokens, past=29, heads=4, kv_heads=2, size=64)


@pytest.mark.parametrize("vocabulary", cases.VOCABULARIES)
@pytest.mark.parametrize("name", checks.SAMPLER_CASES)
def test_the_gpu_chooses_as_the_cpu_does(name: str, vocabulary: int) -> None:
    checks.check_same_choices(DEVICE, name, vocabulary)


def test_bad_logits_are_named() -> None:
    checks.check_bad_logits(DEVICE)
