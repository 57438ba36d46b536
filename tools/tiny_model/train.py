"""Trains the model: a fixed number of steps over freshly generated text, one seed."""

from __future__ import annotations

import datetime
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import batches, evaluate, vocabulary
from .network import Network, Shape
from .optimizer import Optimizer
from .rounding import q4_k_m

MATRIX_RATE = 0.02
VECTOR_RATE = 0.004
WARMUP = 0.02
ROUNDED_FROM = 0.65
QUIET_WEIGHT = 0.1
PARTS = 3


def rate(step: int, steps: int) -> float:
    """The share of the top learning rate: a short warm-up, then half a cosine."""
    warm = max(1, round(steps * WARMUP))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def weighted_loss(network: torch.nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The loss to descend, and the mean loss of the tokens that count in full."""
    ids = rows & (batches.QUIET - 1)
    quiet = (rows[:, 1:] & batches.QUIET) != 0
    logits = network(ids[:, :-1])
    losses = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    weight = torch.where(quiet, QUIET_WEIGHT, 1.0).flatten()
    loud = (~quiet).flatten().float()
    return (losses * weight).sum() / weight.sum(), ((losses * loud).sum() / loud.sum()).detach()


def run(
    out: Path,
    *,
    steps: int,
    rows: int,
    seed: int,
    device: str,
    workers: int,
    shape: Shape | None = None,
    evaluated: bool = True,
) -> dict[str, object]:
    """Trains and writes tokenizer.json, weights-*.npz and training.json into `out`."""
    begin = time.monotonic()
    shape = shape or Shape()
    out.mkdir(parents=True, exist_ok=True)
    tokenizer_path = out / "tokenizer.json"
    vocabulary.save(vocabulary.train(seed, size=shape.vocabulary), tokenizer_path)

    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    on_gpu = device == "cuda"
    network = Network(shape).to(device)
    if on_gpu:
        for parameter in network.parameters():
            if parameter.dim() == 2:
                parameter.data = parameter.data.bfloat16()
    optimizer = Optimizer(network)
    step_loss = torch.compile(weighted_loss, dynamic=False) if on_gpu else weighted_loss

    log: list[dict[str, float]] = []
    started = time.monotonic()
    stream = batches.stream(tokenizer_path, seed * 1_000_000, steps, rows, shape.context, workers)
    for step, block in enumerate(stream):
        host = torch.from_numpy(block.astype(np.int64))
        batch = host.pin_memory().to(device, non_blocking=True) if on_gpu else host
        network.zero_grad(set_to_none=True)
        loss, plain = step_loss(network, batch)
        loss.backward()
        share = rate(step, steps)
        rounded = step >= ROUNDED_FROM * steps
        optimizer.step(MATRIX_RATE * share, VECTOR_RATE * share, rounded)
        if step % max(1, steps // 40) == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            log.append({"step": step, "loss": round(plain.item(), 4), "seconds": round(seconds, 1)})
            print(json.dumps(log[-1]), flush=True)
    seconds = time.monotonic() - started

    weights = {n: w.cpu().numpy() for n, w in optimizer.masters_by_name().items()}
    save_weights(weights, out)
    record: dict[str, object] = {
        "seed": seed,
        "steps": steps,
        "rows_per_step": rows,
        "tokens": steps * rows * shape.context,
        "parameters": sum(w.size for w in weights.values()),
        "seconds_training": round(seconds, 1),
        "seconds_in_all": round(time.monotonic() - begin, 1),
        "date": datetime.date.today().isoformat(),
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "torch": torch.__version__,
        "rounded_from_step": math.ceil(ROUNDED_FROM * steps),
        "final_loss": log[-1]["loss"],
        "shape": shape.as_dict(),
        "log": log,
    }
    if evaluated:
        for key, rounded in (("right_before_rounding", False), ("evaluation", True)):
            network = network_of(weights, shape, rounded=rounded).to(device)
            answerer = evaluate.Answerer(network, tokenizer_path)
            record[key] = evaluate.report(answerer) if rounded else evaluate.sums(answerer)
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def network_of(weights: dict[str, np.ndarray], shape: Shape, *, rounded: bool) -> Network:
    """A float32 network with these weights, rounded to Q4_K_M where asked for."""
    network = Network(shape)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            weight = torch.from_numpy(weights[name])
            parameter.copy_(q4_k_m(name, weight, shape.layers) if rounded else weight)
    return network


def save_weights(weights: dict[str, np.ndarray], out: Path) -> None:
    """Float32 weights in a few files of about the same size."""
    names = sorted(weights, key=lambda n: -weights[n].size)
    for part in range(PARTS):
        chosen = {n: weights[n] for n in names[part::PARTS]}
        np.savez(out / f"weights-{part}.npz", **chosen)


def load_weights(out: Path) -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = {}
    for path in sorted(out.glob("weights-*.npz")):
        with np.load(path) as part:
            weights.update({name: part[name] for name in part.files})
    return weights
