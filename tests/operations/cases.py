"""The sizes that every device is checked at: odd ones, and the borders of tiles."""

from __future__ import annotations

from typing import Any

from quantloom.formats import FORMATS

QUANTIZED = [name for name, kind in FORMATS.items() if kind.state == "served" and kind.elements > 1]
NORMS = [(1, 64), (3, 172), (5, 4096), (2, 8192), (2, 10240), (7, 33)]
EMBEDS = [
    ("F32", 36),
    ("F16", 64),
    ("Q4_0", 96),
    ("Q5_1", 320),
    ("Q8_0", 32),
    ("Q2_K", 256),
    ("Q4_K", 512),
    ("Q6_K", 768),
]
PROJECTION_FORMATS = ["F32", "F16", "Q4_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
PROJECTION_TOKENS = [1, 3, 9, 17, 65]
# Tokens that fill a tile, or leave one over or short, which the cases of many formats do not have.
TILE_BORDERS = [*range(1, 10), 15, 16, 17, 63, 64, 65, 127, 128, 129]
# Formats, rows and columns of one product's three matrices: a GPU shares its form of x among them.
MIXED: list[tuple[list[str], list[int], int]] = [
    (["Q4_K", "Q4_K", "Q6_K"], [800, 96, 96], 512),
    (["Q4_K", "Q6_K", "Q8_0"], [96, 33, 33], 4096),
    (["Q5_0", "Q2_K", "Q5_0"], [130, 40, 17], 768),
]
# Tokens and the feed-forward length: ends inside tiles, and lengths that are no chunks of 64.
FEED_FORWARDS = [
    *[(1, 512), (7, 512), (9, 1024), (40, 544), (130, 1536), (300, 768), (512, 2048)],
    *[(16, 832), (130, 832)],  # a prepared x that ends within a piece of 256 columns
]
GATE_TOKENS = [1, 8, 9, 40, 130, 512]  # each of the tiles that a GPU chooses from
ATTENTIONS: dict[str, dict[str, Any]] = {
    "first token": {"tokens": 1, "past": 0, "heads": 4, "kv_heads": 2, "size": 64},
    "decode": {"tokens": 1, "past": 1000, "heads": 8, "kv_heads": 2, "size": 128},
    "decode, one group": {"tokens": 1, "past": 777, "heads": 2, "kv_heads": 2, "size": 64},
    "decode, group of 16": {"tokens": 1, "past": 300, "heads": 16, "kv_heads": 1, "size": 64},
    "a few tokens": {"tokens": 5, "past": 131, "heads": 6, "kv_heads": 2, "size": 96},
    "prefill": {"tokens": 130, "past": 0, "heads": 4, "kv_heads": 2, "size": 128},
    "prefill on a past": {"tokens": 67, "past": 65, "heads": 8, "kv_heads": 2, "size": 64},
    "in chunks": {"tokens": 75, "past": 3, "heads": 4, "kv_heads": 1, "size": 32, "chunk": 33},
    "token by token": {"tokens": 9, "past": 0, "heads": 4, "kv_heads": 2, "size": 64, "chunk": 1},
    "f32 cache": {
        "tokens": 19,
        "past": 40,
        "heads": 4,
        "kv_heads": 2,
        "size": 64,
        "cache_type": "f32",
    },
    "q8_0 cache, decode": {
        "tokens": 1,
        "past": 500,
        "heads": 8,
        "kv_heads": 2,
        "size": 128,
        "cache_type": "q8_0",
    },
    "q8_0 cache, prefill": {
        "tokens": 40,
        "past": 20,
        "heads": 4,
        "kv_heads": 2,
        "size": 64,
        "cache_type": "q8_0",
    },
    "head of 8": {"tokens": 12, "past": 10, "heads": 8, "kv_heads": 4, "size": 8},
    "head of 80": {"tokens": 12, "past": 30, "heads": 4, "kv_heads": 2, "size": 80},
    "head of 256": {"tokens": 12, "past": 30, "heads": 2, "kv_heads": 1, "size": 256},
    "interleaved, partial": {
        "tokens": 20,
        "past": 11,
        "heads": 4,
        "kv_heads": 2,
        "size": 64,
        "interleaved": True,
        "dimensions": 32,
    },
    "normed": {"tokens": 20, "past": 9, "heads": 4, "kv_heads": 2, "size": 64, "normed": True},
    "window, decode": {
        "tokens": 1,
        "past": 400,
        "heads": 8,
        "kv_heads": 2,
        "size": 64,
        "window": 100,
    },
    "window, prefill": {
        "tokens": 90,
        "past": 30,
        "heads": 4,
        "kv_heads": 2,
        "size": 64,
        "window": 37,
    },
    "soft cap": {
        "tokens": 20,
        "past": 33,
        "heads": 4,
        "kv_heads": 2,
        "size": 64,
        "soft_cap": 3.0,
    },
    "soft cap, decode": {
        "tokens": 1,
        "past": 33,
        "heads": 4,
        "kv_heads": 2,
        "size": 64,
        "soft_cap": 3.0,
    },
    "prefill, tiles of 128": {"tokens": 300, "past": 0, "heads": 8, "kv_heads": 2, "size": 128},
    "prefill, group of 7": {"tokens": 77, "past": 5, "heads": 7, "kv_heads": 1, "size": 128},
    "prefill, no groups": {"tokens": 257, "past": 100, "heads": 2, "kv_heads": 2, "size": 64},
    "prefill, head of 96": {"tokens": 131, "past": 130, "heads": 6, "kv_heads": 2, "size": 96},
    "prefill, head of 256": {"tokens": 129, "past": 7, "heads": 4, "kv_heads": 2, "size": 256},
    "few tokens, long past": {"tokens": 17, "past": 3000, "heads": 8, "kv_heads": 2, "size": 128},
    "long prefill in chunks": {
        "tokens": 150,
        "past": 3,
        "heads": 8,
        "kv_heads": 2,
        "size": 128,
        "chunk": 33,
    },
    "long window": {
        "tokens": 200,
        "past": 333,
        "heads": 8,
        "kv_heads": 2,
        "size": 128,
        "window": 150,
    },
    "soft cap and window, head of 256": {
        "tokens": 150,
        "past": 10,
        "heads": 4,
        "kv_heads": 2,
        "size": 256,
        "window": 70,
        "soft_cap": 50.0,
    },
    "soft cap, prefill": {
        "tokens": 90,
        "past": 40,
        "heads": 8,
        "kv_heads": 2,
        "size": 128,
        "soft_cap": 3.0,
    },
    "q8_0 cache, long prefill": {
        "tokens": 300,
        "past": 130,
        "heads": 8,
        "kv_heads": 2,
        "size": 128,
        "cache_type": "q8_0",
    },
    "a full cache": {"tokens": 16, "past": 48, "heads": 4, "kv_heads": 2, "size": 64, "spare": 0},
}
# With a past that ends inside a tile of keys; the others' tokens are among the cases above.
ATTENTION_BORDERS = [tokens for tokens in TILE_BORDERS if tokens not in (1, 5, 9, 16, 17, 129)]
VOCABULARIES = [300, 32000, 151936]
