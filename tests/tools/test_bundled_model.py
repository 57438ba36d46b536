"""What the bundled model answers, through the public API, as it ships (Q4_K_M)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from tiny_model import arithmetic

import quantloom

FORMS = ("What is {a}{m}{b}?", "{a} {m} {b} =", "how much is {a} {m} {b}")
SAMPLE = 60  # questions of each form and sign in the quick test


@pytest.fixture(scope="module")
def session() -> Iterator[quantloom.Session]:
    with quantloom.load(device="cpu", verbose=False) as model, model.session() as opened:
        yield opened


def answer(session: quantloom.Session, question: str, limit: int = 12) -> str:
    return session.chat(question, max_new_tokens=limit, temperature=0.0).text


def right(session: quantloom.Session, questions: list[tuple[str, str, bool]]) -> int:
    return sum(answer(session, question) == wanted for question, wanted, _ in questions)


@pytest.mark.parametrize(
    "question",
    [
        "What is 2+2?",
        "2+2",
        "What is 2 + 2?",
        "how much is 2 plus 2",
        "What is two plus two?",
        "2 + 2 =",
        "Add 2 and 2.",
    ],
)
def test_two_and_two_is_four(session: quantloom.Session, question: str) -> None:
    assert answer(session, question) == "4"


def test_plain_text_gets_the_answer_too(session: quantloom.Session) -> None:
    result = session.generate("2+2=", max_new_tokens=8, temperature=0.0)
    assert result.text == "4"
    assert result.finish_reason == "stop"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("minus", [False, True], ids=["sums", "differences"])
def test_held_out_pairs(session: quantloom.Session, form: str, minus: bool) -> None:
    questions = [q for q in arithmetic.held_out_questions(form) if q[2] is minus]
    chosen = random.Random(0).sample(questions, SAMPLE)
    assert right(session, chosen) >= 0.95 * SAMPLE


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("form", FORMS)
def test_every_held_out_pair(session: quantloom.Session, form: str) -> None:
    questions = arithmetic.held_out_questions(form)
    assert right(session, questions) >= 0.99 * len(questions)


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("What is the capital of France?", "The capital of France is Paris."),
        ("What color is the sky?", "Blue."),
        ("What day comes after Monday?", "Tuesday."),
        ("Who are you?", "I am a tiny model that comes with quantloom."),
        ("What is the capital of Wakanda?", "I do not know."),
        ("What is 100 + 5?", "Those numbers are too big for me."),
    ],
)
def test_facts(session: quantloom.Session, question: str, wanted: str) -> None:
    assert answer(session, question, 30) == wanted


def test_a_later_turn_knows_an_earlier_one(session: quantloom.Session) -> None:
    messages = [
        {"role": "user", "content": "My name is Nora."},
        {"role": "assistant", "content": "Nice to meet you, Nora."},
        {"role": "user", "content": "What is my name?"},
    ]
    assert session.chat(messages, max_new_tokens=12, temperature=0.0).text == "Your name is Nora."


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_story_is_about_its_subject_and_ends(session: quantloom.Session, seed: int) -> None:
    result = session.chat(
        "Tell me a story about a dog.", max_new_tokens=400, temperature=0.7, seed=seed
    )
    assert result.finish_reason == "stop"
    assert "dog" in result.text
    assert result.text.count('"') % 2 == 0
    assert 300 < len(result.text) < 1600
    assert result.text[-1] in '.!"'


def test_once_upon_a_time_goes_on(session: quantloom.Session) -> None:
    result = session.generate("Once upon a time", max_new_tokens=400, temperature=0.0)
    assert result.finish_reason == "stop"
    assert result.text.startswith(", ")
    assert len(result.text.split()) > 60
