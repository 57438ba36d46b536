"""The generator of the bundled model's training text, and the file that ships."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from pathlib import Path

import pytest
from tiny_model import arithmetic, corpus, facts, stories
from tiny_model.words import number_word

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "python" / "quantloom" / "data"
WORDS = {number_word(n): n for n in range(200)}
NUMBER = re.compile(r"(?<!\w)(?:\d+|" + "|".join(sorted(WORDS, key=len, reverse=True)) + r")\b")
OPERATION = re.compile(
    r"[+=\u2212\u2013]|\d ?- ?\d|plus|minus|take|less|sum|add|subtract|difference|apart|together"
    r"|make|more|left|now\?|give|lost|found",
    re.IGNORECASE,
)
OTHER_OPERATION = re.compile(r"times|\*|\d ?x ?\d|/|divided")


def documents(seed: int, count: int) -> list[str]:
    return list(itertools.islice(corpus.documents(seed), count))


def numbers(text: str) -> list[int]:
    return [WORDS.get(n, -1) if n in WORDS else int(n) for n in NUMBER.findall(text.lower())]


def calculations(document: str) -> list[str]:
    """The parts of a document that can pose a sum: every question and every line or sentence."""
    texts = re.split(r"<\|\w+\|>", document)
    parts = [t for t in texts if len(t) < 160]
    parts += [s for t in texts if len(t) >= 160 for s in re.split(r"(?<=[.!?])\s", t)]
    return [p for p in parts if OPERATION.search(p) and not OTHER_OPERATION.search(p)]


def test_the_same_seed_gives_the_same_text() -> None:
    assert documents(5, 300) == documents(5, 300)
    assert documents(5, 300) != documents(6, 300)


def test_a_tenth_of_the_pairs_is_held_out() -> None:
    held = arithmetic.held_out()
    assert len(held) == 500
    assert all(0 <= x <= y < 100 for x, y in held)
    assert any(x < 10 for x, _ in held) and any(x > 9 for x, _ in held)
    assert not any(y < 10 for _, y in held)


def test_no_phrasing_poses_a_held_out_pair() -> None:
    seen = 0
    for document in documents(11, 12_000):
        for part in calculations(document):
            values = numbers(part)
            for x, y in itertools.pairwise(values[:2]):
                seen += 1
                assert not arithmetic.is_held_out(x, y), part
    assert seen > 5_000


def test_the_search_for_held_out_pairs_finds_them() -> None:
    x, y = next(p for p in sorted(arithmetic.held_out()) if p[0] > 20)
    for question in (
        f"What is {x}+{y}?",
        f"{y} minus {x}",
        f"Take {number_word(x)} away from {number_word(y)}.",
        f"Tom has {y} nuts and gives away {x}. How many nuts does Tom have now?",
    ):
        (part,) = calculations(corpus.chat([(question, "?")]))
        assert sorted(numbers(part)[:2]) == [x, y]


@pytest.mark.parametrize("minus", [False, True])
def test_answers_are_right(minus: bool) -> None:
    rng = random.Random(3)
    for _ in range(3_000):
        x, y = arithmetic.pair(rng)
        question, answer = arithmetic.ask(rng, x, y, minus)
        wanted = x - y if minus else x + y
        if re.search("difference|apart", question, re.IGNORECASE):
            wanted = abs(wanted)
        assert answer == str(wanted), question
        assert sorted(numbers(question)[:2]) == sorted((x, y)), question


def test_plain_sums_are_right() -> None:
    rng = random.Random(4)
    for _ in range(1_000):
        text = arithmetic.statement(rng)
        left, right = re.split(r"=| is ", text.rstrip("."))
        x, y = (int(n) for n in re.findall(r"\d+", left))
        assert int(right) == (x - y if re.search("-|minus", left) else x + y)


def test_unknown_questions_are_answered_so() -> None:
    rng = random.Random(8)
    assert {facts.unknown(rng)[1] for _ in range(200)} == {"I do not know."}


@pytest.mark.parametrize("plot", stories.PLOTS, ids=lambda plot: plot.__name__)
def test_stories_are_well_formed(plot: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stories, "PLOTS", (plot,))
    rng = random.Random(9)
    for _ in range(200):
        text = stories.tell(rng).text
        assert 200 < len(text) < 1600
        assert text[-1] in '.!"'
        assert text.count('"') % 2 == 0
        assert not re.search(r"  |\.\.|[{}]|\b(an? an?|the the)\b| [.,!?]|\?\.|\".\.", text), text
        assert not re.search(r"\ba [aeio][a-z]|\ban [bcdfgjklmnpqrstvwxyz]", text), text


def test_conversations_have_the_chat_form() -> None:
    message = r"<\|{}\|>[^<]+<\|end\|>"
    turn = message.format("user") + message.format("assistant")
    form = re.compile(rf"<\|begin\|>(({message.format('system')})?({turn})+|[^<]+<\|end\|>)")
    for document in documents(2, 2_000):
        assert form.fullmatch(document), document


def test_the_shipped_file_is_the_recorded_one() -> None:
    record = json.loads((DATA / "tiny.json").read_text())
    content = (DATA / "tiny.gguf").read_bytes()
    assert len(content) == record["bytes"] <= 6_000_000
    assert hashlib.sha256(content).hexdigest() == record["sha256"]
