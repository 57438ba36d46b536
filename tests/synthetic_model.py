"""Small random models of every supported architecture, as GGUF files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from operations.products import sane_blocks
from quantloom.formats import FORMATS, tensor_type
from quantloom.gguf_writer import GGUFWriter

VOCABULARY = 96


@dataclass
class Synthetic:
    """A recipe; `write()` makes the file. Keys are without the architecture's prefix.

    `drop` leaves out keys and tensors, `tensors` and `keys` replace or add them.
    """

    architecture: str = "llama"
    layers: int = 2
    embedding: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 16
    feed_forward: int = 96
    context: int = 128
    tied: bool = False
    biases: tuple[str, ...] = ()
    qk_norm: bool = False
    format: str = "F32"
    formats: dict[str, str] = field(default_factory=dict)  # of tensors that have another
    keys: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, np.ndarray | None] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    seed: int = 0

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        query, key = self.heads * self.head_size, self.kv_heads * self.head_size
        e, f = self.embedding, self.feed_forward
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCABULARY, e)}
        for layer in range(self.layers):
            block = {
                "attn_norm.weight": (e,),
                "attn_q.weight": (query, e),
                "attn_k.weight": (key, e),
                "attn_v.weight": (key, e),
                "attn_output.weight": (e, query),
                "ffn_norm.weight": (e,),
                "ffn_gate.weight": (f, e),
                "ffn_up.weight": (f, e),
                "ffn_down.weight": (e, f),
            }
            for name in self.biases:
                block[name + ".bias"] = block[name + ".weight"][:1]
            if self.qk_norm:
                block["attn_q_norm.weight"] = block["attn_k_norm.weight"] = (self.head_size,)
            shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
        shapes["output_norm.weight"] = (e,)
        if not self.tied:
            shapes["output.weight"] = (VOCABULARY, e)
        return shapes

    def _values(self, random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith("norm.weight"):
            return (1 + 0.2 * random.standard_normal(shape)).astype(np.float32)
        # Scaled so that attention, feed-forward and biases all matter to the logits.
        scale = 0.3 if len(shape) == 1 else 1.5 / np.sqrt(shape[-1])
        return (scale * random.standard_normal(shape)).astype(np.float32)

    def write(self, folder: Path, name: str = "model.gguf") -> Path:
        writer = GGUFWriter()
        writer.add("general.architecture", self.architecture)
        keys = {
            "context_length": self.context,
            "embedding_length": self.embedding,
            "block_count": self.layers,
            "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads,
            "attention.head_count_kv": self.kv_heads,
            "attention.key_length": self.head_size,
            "attention.value_length": self.head_size,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "vocab_size": VOCABULARY,
            **self.keys,
        }
        for key, value in keys.items():
            if key not in self.drop:
                writer.add(f"{self.architecture}.{key}", value)
        for key, value in self.metadata.items():
            writer.add(key, value)
        random = np.random.default_rng(self.seed)
        arrays = {n: self._values(random, n, shape) for n, shape in self._shapes().items()}
        arrays |= {n: array for n, array in self.tensors.items() if array is not None}
        for tensor, array in arrays.items():
            if tensor in self.drop:
                continue
            format = self.formats.get(tensor, self.format)
            if array.ndim == 2 and format != "F32" and array.dtype == np.float32:
                self._add_blocks(writer, random, tensor, array.shape)
            else:
                writer.add_tensor(tensor, array)
        path = folder / name
        writer.write(path)
        return path

    def _add_blocks(
        self, writer: GGUFWriter, random: np.random.Generator, name: str, shape: tuple[int, ...]
    ) -> None:
        from quantloom.quantization import quantize

        deviation = 1.5 / np.sqrt(shape[-1])
        format = self.formats.get(name, self.format)
        if FORMATS[format].encodable:
            values = (deviation * random.standard_normal(shape)).astype(np.float32)
            blocks = np.asarray(quantize(values, format))
        else:
            pool = sane_blocks(format, deviation / 16, 4 * deviation)
            count = shape[0] * shape[1] // FORMATS[format].elements
            blocks = pool[random.integers(0, len(pool), count)]
        assert blocks.nbytes == shape[0] * tensor_type(format).row_bytes(shape[1])
        writer.add_tensor(name, blocks.reshape(-1).view(np.uint8), shape=shape, format=format)
