"""Muon for the layers' matrices and AdamW for the rest, over float32 master weights.

The network's own parameters are copies of the masters, rounded to Q4_K_M in the last part of
training. A gradient taken at the rounded copy is applied to the master (straight-through).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .network import Network
from .rounding import q4_k, q4_k_m, q4_k_m_is_wide, q6_k

MOMENTUM = 0.95
BETAS = (0.9, 0.98)
DECAY = 0.02


def orthogonalize(g: Tensor) -> Tensor:
    """A stack of matrices with their singular values moved toward 1 (Jordan et al., 2024).

    Five Newton-Schulz steps with the quintic coefficients of that work.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = x.bfloat16() if g.is_cuda else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).float()


class Group:
    """All matrices of one shape and one rounding, updated as one stack."""

    def __init__(self, names: list[str], parameters: list[Tensor], wide: bool) -> None:
        self.names = names
        self.parameters = parameters
        self.wide = wide
        self.master = torch.stack([p.detach().float() for p in parameters])
        self.momentum = torch.zeros_like(self.master)

    def step(self, rate: float) -> None:
        gradient = torch.stack([p.grad for p in self.parameters if p.grad is not None]).float()
        self.momentum.lerp_(gradient, 1 - MOMENTUM)
        update = orthogonalize(gradient.lerp(self.momentum, MOMENTUM))
        rows, columns = self.master.shape[-2:]
        self.master.mul_(1 - rate * DECAY)
        self.master.add_(update, alpha=-rate * max(1.0, rows / columns) ** 0.5)

    def publish(self, rounded: bool) -> None:
        """Writes the masters, rounded or not, into the network's parameters."""
        values = self.master
        if rounded:
            values = q6_k(values) if self.wide else q4_k(values)
        torch._foreach_copy_(self.parameters, list(values.unbind()))


class Optimizer:
    def __init__(self, network: Network) -> None:
        self.layers = network.shape.layers
        stacks: dict[tuple[object, ...], list[tuple[str, Tensor]]] = {}
        self.rest: list[tuple[str, Tensor]] = []
        for name, parameter in network.named_parameters():
            if name.startswith("blk.") and parameter.dim() == 2:
                key = (tuple(parameter.shape), q4_k_m_is_wide(name, self.layers))
                stacks.setdefault(key, []).append((name, parameter))
            else:
                self.rest.append((name, parameter))
        self.groups = [
            Group([n for n, _ in items], [p for _, p in items], bool(key[1]))
            for key, items in stacks.items()
        ]
        self.masters = [p.detach().float().clone().requires_grad_() for _, p in self.rest]
        self.adam = torch.optim.AdamW(self.masters, lr=1.0, betas=BETAS, weight_decay=0.0)

    @torch.no_grad()
    def step(self, matrix_rate: float, vector_rate: float, rounded: bool) -> None:
        for group in self.groups:
            group.step(matrix_rate)
            group.publish(rounded)
        for master, (_, parameter) in zip(self.masters, self.rest, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
        self.adam.param_groups[0]["lr"] = vector_rate
        self.adam.step()
        for master, (name, parameter) in zip(self.masters, self.rest, strict=True):
            parameter.copy_(q4_k_m(name, master, self.layers) if rounded else master)

    def masters_by_name(self) -> dict[str, Tensor]:
        """Every weight in float32, unrounded."""
        weights = {name: m.detach() for (name, _), m in zip(self.rest, self.masters, strict=True)}
        for group in self.groups:
            weights.update(zip(group.names, group.master.unbind(), strict=True))
        return weights
