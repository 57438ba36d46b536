"""How many sums a network gets right, and what it writes, by greedy decoding in PyTorch."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from . import arithmetic, corpus, facts, vocabulary
from .network import Network

SHOWN = (
    "What is 2+2?",
    "Who are you?",
    "What is the capital of France?",
    "What color is the sky?",
    "How much is 17 plus 26?",
    "What is 3 - 8?",
    "What is the opposite of hot?",
    "What day comes after Monday?",
    "What is the capital of Blorbistan?",
    "What is the meaning of life?",
    "Tell me a story about a dog.",
    "Tell me a story.",
    "Write a story about a spaceship.",
    "Hello",
)
FORMS = ("What is {a}{m}{b}?", "{a} {m} {b} =", "how much is {a} {m} {b}")


@torch.no_grad()
def complete(network: Network, prompts: list[list[int]], limit: int, end: int) -> list[list[int]]:
    """Greedy continuations of prompts of any lengths, each up to `end` or `limit` tokens."""
    device = network.token_embd.device
    network.eval()
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    width = max(len(p) for p in prompts) + limit
    tokens = torch.full((len(prompts), width), end, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
    tokens = tokens.to(device)
    rows = torch.arange(len(prompts), device=device)
    alive = torch.ones(len(prompts), dtype=torch.bool, device=device)
    made = 0
    while made < limit and bool(alive.any()):
        used = int(lengths.max()) + made
        logits = network(tokens[:, :used])[rows, lengths + made - 1]
        chosen = torch.where(alive, logits.argmax(-1), end)
        tokens[rows, lengths + made] = chosen
        alive &= chosen != end
        made += 1
    out = []
    for row, prompt in enumerate(prompts):
        continued = tokens[row, len(prompt) : len(prompt) + made].tolist()
        out.append(continued[: continued.index(end)] if end in continued else continued)
    return out


class Answerer:
    """Answers questions in the chat form and continues plain text."""

    def __init__(self, network: Network, tokenizer_path: Path) -> None:
        self.network = network
        self.tokenizer = vocabulary.load(tokenizer_path)
        self.end = self.tokenizer.token_to_id(corpus.END)

    def _continue(self, texts: list[str], limit: int) -> list[str]:
        prompts = [e.ids for e in self.tokenizer.encode_batch(texts, add_special_tokens=False)]
        done = complete(self.network, prompts, limit, self.end)
        return [self.tokenizer.decode(ids) for ids in done]

    def answer(self, questions: list[str], limit: int = 8) -> list[str]:
        texts = [f"{corpus.BEGIN}{corpus.USER}{q}{corpus.END}{corpus.ASSISTANT}" for q in questions]
        return self._continue(texts, limit)

    def go_on(self, text: str, limit: int) -> str:
        return self._continue([corpus.BEGIN + text], limit)[0]


def sums(answerer: Answerer) -> dict[str, str]:
    """Right answers of all held-out questions, for each form and sign."""
    right: dict[str, str] = {}
    for form in FORMS:
        questions = arithmetic.held_out_questions(form)
        answers = answerer.answer([q for q, _, _ in questions])
        for minus in (False, True):
            results = [
                given == wanted
                for (_, wanted, is_minus), given in zip(questions, answers, strict=True)
                if is_minus is minus
            ]
            sign = "-" if minus else "+"
            right[form.replace("{m}", sign)] = f"{sum(results)}/{len(results)}"
    return right


def report(answerer: Answerer) -> dict[str, object]:
    """The share of right answers per question form, of facts, and a few whole answers."""
    right = sums(answerer)
    rng = random.Random(0)
    for name, draw in (("facts", facts.exchange), ("unknown", facts.unknown)):
        asked = [draw(rng) for _ in range(500)]
        given = answerer.answer([q for q, _ in asked], limit=40)
        right[name] = f"{sum(g == w for g, (_, w) in zip(given, asked, strict=True))}/500"
    shown = {q: answerer.answer([q], limit=260)[0] for q in SHOWN}
    for start in ("Once upon a time", "The little dog", "2+2="):
        shown[start] = answerer.go_on(start, 260)
    return {"right": right, "shown": shown}
