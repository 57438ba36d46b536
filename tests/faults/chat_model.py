"""A small random model that can chat: its vocabulary and its template can be made to lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from vocabularies import CHAT_TEMPLATE, bpe_metadata, spm_metadata

from synthetic_model import Synthetic

KINDS = {"bpe": bpe_metadata, "spm": spm_metadata}
REMOVED = object()


def chat_model(
    folder: Path, kind: str = "bpe", changes: Mapping[str, Any] | None = None, **recipe: Any
) -> Path:
    """Writes a llama of two layers with a whole vocabulary.

    Args:
        kind: "bpe" or "spm".
        changes: metadata keys to replace or add; REMOVED leaves one out.
        recipe: of Synthetic.
    """
    metadata = {"tokenizer.chat_template": CHAT_TEMPLATE, **KINDS[kind](), **(changes or {})}
    metadata = {key: value for key, value in metadata.items() if value is not REMOVED}
    del metadata["general.architecture"]
    tokens = metadata.get("tokenizer.ggml.tokens")
    rows = len(tokens) if isinstance(tokens, list) else 96
    random = np.random.default_rng(1)
    table = (0.2 * random.standard_normal((rows, 64))).astype(np.float32)
    return Synthetic(
        metadata=metadata,
        keys={"vocab_size": rows, **recipe.pop("keys", {})},
        tensors={"token_embd.weight": table, "output.weight": table[::-1].copy()}
        | recipe.pop("tensors", {}),
        **recipe,
    ).write(folder)
