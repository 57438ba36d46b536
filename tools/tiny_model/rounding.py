"""Q4_K and Q6_K rounding of a weight in PyTorch, for training with the rounding in place.

A group's range sets its scale and offset directly; the values that come out lie on the format's
grid, so that a quantizer which searches around that range finds the same numbers again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quantloom.mixes import gets_more_bits

SUPER_BLOCK = 256


def q4_k(weight: Tensor) -> Tensor:
    """The weight rounded to Q4_K: 8 groups of 32, value = d * scale * q - dmin * minimum."""
    x = weight.float().reshape(-1, 8, 32)
    low = x.amin(-1, keepdim=True).clamp(max=0)
    step = (x.amax(-1, keepdim=True) - low) / 15
    d = (step.amax(1, keepdim=True) / 63).half().float()
    dmin = (-low.amin(1, keepdim=True) / 63).half().float()
    scale = _over(step, d).round().clamp(0, 63) * d
    minimum = _over(-low, dmin).round().clamp(0, 63) * dmin
    q = _over(x + minimum, scale).round().clamp(0, 15)
    return (q * scale - minimum).reshape(weight.shape)


def q6_k(weight: Tensor) -> Tensor:
    """The weight rounded to Q6_K: 16 groups of 16, value = d * scale * q with q from -32 to 31."""
    x = weight.float().reshape(-1, 16, 16)
    at = x.abs().argmax(-1, keepdim=True)
    step = x.gather(-1, at) / -32
    widest = step.abs().argmax(1, keepdim=True)
    d = (step.gather(1, widest) / -128).half().float()
    scale = _over(step, d).round().clamp(-128, 127) * d
    q = _over(x, scale).round().clamp(-32, 31)
    return (q * scale).reshape(weight.shape)


def _over(x: Tensor, y: Tensor) -> Tensor:
    """x / y, and 0 where y is 0."""
    return torch.where(y == 0, torch.zeros_like(x), x / torch.where(y == 0, 1.0, y))


def q4_k_m_is_wide(name: str, layers: int) -> bool:
    """Whether the mix Q4_K_M stores this tensor as Q6_K and not as Q4_K.

    The output matrix (here the embedding), and attn_v and ffn_down in the layers that the mix
    gives more bits.
    """
    if name.startswith("token_embd"):
        return True
    if not name.endswith(("attn_v", "ffn_down")):
        return False
    return gets_more_bits(int(name.split(".")[1]), layers)


def q4_k_m(name: str, weight: Tensor, layers: int) -> Tensor:
    """The weight as the mix Q4_K_M would round it; vectors stay as they are."""
    if weight.dim() < 2:
        return weight
    return q6_k(weight) if q4_k_m_is_wide(name, layers) else q4_k(weight)
