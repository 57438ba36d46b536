"""A llama-architecture transformer in PyTorch, with the names that its GGUF tensors have."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The sizes of the model; every row of a weight is a multiple of 256 long."""

    vocabulary: int = 3072
    width: int = 256
    layers: int = 9
    heads: int = 8
    kv_heads: int = 4
    feed_forward: int = 768
    context: int = 1024
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


class Layer(nn.Module):
    """One transformer layer: attention and a gated feed-forward part."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        kv_width = shape.kv_heads * shape.head_size
        self.shape = shape
        self.attn_norm = nn.Parameter(torch.ones(shape.width))
        self.attn_q = nn.Parameter(torch.empty(shape.width, shape.width))
        self.attn_k = nn.Parameter(torch.empty(kv_width, shape.width))
        self.attn_v = nn.Parameter(torch.empty(kv_width, shape.width))
        self.attn_output = nn.Parameter(torch.zeros(shape.width, shape.width))
        self.ffn_norm = nn.Parameter(torch.ones(shape.width))
        self.ffn_gate = nn.Parameter(torch.empty(shape.feed_forward, shape.width))
        self.ffn_up = nn.Parameter(torch.empty(shape.feed_forward, shape.width))
        self.ffn_down = nn.Parameter(torch.zeros(shape.width, shape.feed_forward))
        for weight in (self.attn_q, self.attn_k, self.attn_v, self.ffn_gate, self.ffn_up):
            nn.init.normal_(weight, std=shape.width**-0.5)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """x, batch x tokens x width; cosine and sine, tokens x half a head."""
        s = self.shape
        batch, tokens, _ = x.shape
        y = normalize(x, self.attn_norm, s.norm_epsilon)
        q = F.linear(y, self.attn_q).view(batch, tokens, s.heads, s.head_size)
        k = F.linear(y, self.attn_k).view(batch, tokens, s.kv_heads, s.head_size)
        v = F.linear(y, self.attn_v).view(batch, tokens, s.kv_heads, s.head_size)
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        group = s.heads // s.kv_heads
        k = k.repeat_interleave(group, dim=2)
        v = v.repeat_interleave(group, dim=2)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        y = y.transpose(1, 2).reshape(batch, tokens, s.width)
        x = x + F.linear(y, self.attn_output)
        y = normalize(x, self.ffn_norm, s.norm_epsilon)
        y = F.silu(F.linear(y, self.ffn_gate)) * F.linear(y, self.ffn_up)
        return x + F.linear(y, self.ffn_down)


class Network(nn.Module):
    """Token ids to logits; the embedding is also the output matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Parameter(torch.empty(shape.vocabulary, shape.width))
        nn.init.normal_(self.token_embd, std=0.02)
        self.blk = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.output_norm = nn.Parameter(torch.ones(shape.width))
        positions = torch.arange(shape.context, dtype=torch.float64)
        halves = torch.arange(0, shape.head_size, 2, dtype=torch.float64) / shape.head_size
        angles = positions[:, None] * shape.rope_base**-halves
        self.cosine: Tensor
        self.sine: Tensor
        self.register_buffer("cosine", angles.cos().float(), persistent=False)
        self.register_buffer("sine", angles.sin().float(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens, batch x length; the logits, batch x length x vocabulary."""
        length = tokens.shape[1]
        x = F.embedding(tokens, self.token_embd)
        for layer in self.blk:
            x = layer(x, self.cosine[:length], self.sine[:length])
        x = normalize(x, self.output_norm, self.shape.norm_epsilon)
        return F.linear(x, self.token_embd)


def normalize(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMSNorm in float32 (Zhang and Sennrich, 2019)."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (wide * scale * weight).to(x.dtype)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """RoPE over neighboring pairs, the order of the GGUF llama architecture."""
    pairs = x.float().unflatten(-1, (-1, 2))
    even, odd = pairs.unbind(-1)
    c, s = cosine[:, None, :], sine[:, None, :]
    turned = torch.stack((even * c - odd * s, even * s + odd * c), dim=-1)
    return turned.flatten(-2).to(x.dtype)
