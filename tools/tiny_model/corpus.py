"""The training text: documents in chat form and as plain text, drawn from one seed each shard."""

from __future__ import annotations

import random
from collections.abc import Iterator

from . import arithmetic, facts, stories, talk
from .words import Random

BEGIN, END, SYSTEM, USER, ASSISTANT = (
    "<|begin|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
)
SPECIAL_TOKENS = (BEGIN, END, SYSTEM, USER, ASSISTANT)

Exchange = tuple[str, str]

_SYSTEM_TEXTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "You are a tiny model that comes with quantloom.",
    "Answer in a few words.",
    "Be kind and brief.",
    "You tell stories and answer questions.",
    "You are good at arithmetic.",
)


def chat(exchanges: list[Exchange], system: str | None = None) -> str:
    """A conversation in the form that the model's chat template gives."""
    parts = [BEGIN]
    if system is not None:
        parts.append(f"{SYSTEM}{system}{END}")
    for question, answer in exchanges:
        parts.append(f"{USER}{question}{END}{ASSISTANT}{answer}{END}")
    return "".join(parts)


def _question(rng: Random) -> list[Exchange]:
    draw = rng.random()
    if draw < 0.5:
        return [facts.exchange(rng)]
    if draw < 0.62:
        return [talk.exchange(rng)]
    if draw < 0.74:
        return [talk.reading(rng)]
    if draw < 0.88:
        return [facts.unknown(rng) if rng.random() < 0.85 else arithmetic.unknown_word(rng)]
    if draw < 0.94:
        return [talk.echo(rng)]
    return talk.introduction(rng)


def _turns(rng: Random, arithmetic_share: float) -> list[Exchange]:
    if rng.random() < arithmetic_share:
        return [arithmetic.exchange(rng)]
    return _question(rng)


def _conversation(rng: Random, arithmetic_share: float) -> str:
    exchanges = _turns(rng, arithmetic_share)
    again = rng.choice((0.0, 0.3, 0.5, 0.8))
    while rng.random() < again and len(exchanges) < 16:
        exchanges += [stories.told(rng)] if rng.random() < 0.03 else _turns(rng, arithmetic_share)
    system = rng.choice(_SYSTEM_TEXTS) if rng.random() < 0.15 else None
    return chat(exchanges, system)


def _plain(rng: Random) -> str:
    """Text without roles: a statement, or a question and its answer on one line."""
    draw = rng.random()
    if draw < 0.3:
        text = arithmetic.statement(rng)
    elif draw < 0.5:
        text = facts.statement(rng)
    else:
        question, answer = arithmetic.exchange(rng) if draw < 0.8 else facts.exchange(rng)
        text = f"{question} {answer}"
        if question.endswith("="):
            text = f"{question}{answer}"
    return f"{BEGIN}{text}{END}"


def document(rng: Random) -> str:
    """One document. By tokens about two fifths are stories, two fifths arithmetic."""
    draw = rng.random()
    if draw < 0.058:
        return f"{BEGIN}{stories.tell(rng).text}{END}"
    if draw < 0.07:
        return f"{BEGIN}{stories.scene(rng)}{END}"
    if draw < 0.13:
        system = rng.choice(_SYSTEM_TEXTS) if rng.random() < 0.1 else None
        exchanges = [stories.told(rng)]
        if rng.random() < 0.15:
            exchanges = _turns(rng, 0.5) + exchanges
        if rng.random() < 0.15:
            exchanges += _turns(rng, 0.5)
        return chat(exchanges, system)
    if draw < 0.25:
        return _plain(rng)
    return _conversation(rng, 0.75 if draw < 0.8 else 0.15)


def documents(seed: int) -> Iterator[str]:
    """An endless stream of documents that the seed alone determines."""
    rng = random.Random(seed)
    while True:
        yield document(rng)
