"""Models with changed bytes: each load gives a typed error or a model that works."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from chat_model import chat_model

import quantloom
from quantloom import NumericsError, QuantloomError
from synthetic_model import Synthetic

KEYS_FIRST = 600  # bytes: the hyperparameters, where most changes get past the reader
BYTES = [0, 1, 2, 0x7F, 0x80, 0xFF]


def header_size(path: Path) -> int:
    with quantloom.open(path) as file:
        return min(tensor.offset for tensor in file.tensors.values())


def use(path: Path, seen: Counter[str]) -> None:
    try:
        with quantloom.load(path, device="cpu", context_length=None) as model:
            assert model.logits([0, 1]).shape == (2, model.vocabulary_size)
            result = model.generate([1, 2], max_new_tokens=2, ignore_eos=True)
            assert len(result.tokens) in (1, 2)
            if model.tokenizer is not None:
                model.tokenize("a b")
                model.chat("Hello", max_new_tokens=1)
    except NumericsError:
        seen["NumericsError"] += 1
    except QuantloomError as error:
        assert str(error) and error.subject, repr(error)
        seen[type(error).__name__] += 1
    else:
        seen["works"] += 1


@pytest.mark.parametrize("rounds", [250, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["bpe", "spm", "Q4_K", "Q8_0"])
def test_changed_bytes(kind: str, rounds: int, tmp_path: Path) -> None:
    if kind in ("bpe", "spm"):
        path = chat_model(tmp_path, kind, layers=1)
    else:
        recipe = Synthetic(
            format=kind, embedding=256, head_size=64, kv_heads=4, feed_forward=256, layers=1
        )
        path = recipe.write(tmp_path)
    whole = path.read_bytes()
    header = header_size(path)
    draw = random.Random(rounds)
    seen: Counter[str] = Counter()
    for _ in range(rounds):
        with path.open("r+b", buffering=0) as handle:
            places = []
            for _ in range(draw.choice([1, 1, 2])):
                last = draw.choice([KEYS_FIRST, header, header, len(whole)])
                place = draw.randrange(min(last, len(whole)))
                changed = draw.choice([*BYTES, whole[place] ^ (1 << draw.randrange(8))])
                os.pwrite(handle.fileno(), bytes([changed]), place)
                places.append(place)
            use(path, seen)
            for place in places:
                os.pwrite(handle.fileno(), whole[place : place + 1], place)
    assert path.read_bytes() == whole
    assert seen["works"] > rounds // 10
    assert seen["GGUFError"] + seen["ModelError"] > rounds // 10
    assert set(seen) <= {
        "works",
        "GGUFError",
        "ModelError",
        "ContextFull",
        "TokenizerError",
        "TemplateError",
        "NumericsError",
        "OutOfMemory",
        "InvalidArgument",
    }
