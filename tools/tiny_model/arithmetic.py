"""Small sums and differences in many phrasings, and the operand pairs that training never sees."""

from __future__ import annotations

import random
from functools import cache

from .words import BOYS, COLLECTED, FRUITS, GIRLS, Random, made_up, number_word

LIMIT = 100
HELD_OUT_SEED = 20261121
HELD_OUT_SHARE = 0.1

Exchange = tuple[str, str]


@cache
def held_out() -> frozenset[tuple[int, int]]:
    """Unordered pairs (a <= b, both below 100) kept out of training, in sums and differences.

    A tenth of the pairs of a one- and a two-digit number, and a tenth of those of two two-digit
    numbers. The pairs of one-digit numbers are the tables that everybody asks for: all are trained.
    """
    rng = random.Random(HELD_OUT_SEED)
    chosen: set[tuple[int, int]] = set()
    for digits in ((1, 2), (2, 2)):
        group = [
            (x, y)
            for y in range(LIMIT)
            for x in range(y + 1)
            if (len(str(x)), len(str(y))) == digits
        ]
        chosen.update(rng.sample(group, round(len(group) * HELD_OUT_SHARE)))
    return frozenset(chosen)


def is_held_out(x: int, y: int) -> bool:
    return (min(x, y), max(x, y)) in held_out()


def pair(rng: Random, limit: int = LIMIT) -> tuple[int, int]:
    """Two operands below `limit` that training may use; small ones come more often."""
    while True:
        top = limit if rng.random() < 0.8 else min(limit, 21)
        x, y = int(rng.random() * top), int(rng.random() * top)
        if rng.random() < 0.1:
            x, y = int(rng.random() * 10), int(rng.random() * 10)
        if not is_held_out(x, y):
            return x, y


def story_pair(rng: Random) -> tuple[int, int]:
    """Two operands from 2 to 12 for things that somebody counts."""
    while True:
        x, y = rng.randint(2, 12), rng.randint(2, 12)
        if not is_held_out(x, y):
            return x, y


# {a} and {b} are the operands, {m} the sign between them; a word form puts number words in.
_SIGN_FORMS = (
    "What is {a}{m}{b}?",
    "What is {a} {m} {b}?",
    "What is {a}{m}{b}",
    "what is {a}{m}{b}?",
    "what is {a} {m} {b}",
    "What's {a}{m}{b}?",
    "What's {a} {m} {b}?",
    "whats {a}{m}{b}",
    "{a}{m}{b}",
    "{a} {m} {b}",
    "{a}{m}{b}=",
    "{a} {m} {b} =",
    "{a}{m}{b}=?",
    "{a} {m} {b} = ?",
    "{a}{m}{b}?",
    "{a} {m} {b}?",
    "Calculate {a}{m}{b}.",
    "Calculate {a} {m} {b}.",
    "Compute {a} {m} {b}.",
    "compute {a}{m}{b}",
    "How much is {a}{m}{b}?",
    "How much is {a} {m} {b}?",
    "how much is {a} {m} {b}?",
    "What does {a} {m} {b} equal?",
    "What does {a}{m}{b} make?",
    "Tell me {a}{m}{b}.",
    "Tell me what {a} {m} {b} is.",
    "Can you tell me what {a}{m}{b} is?",
    "Do you know what {a} {m} {b} is?",
    "Solve {a} {m} {b}.",
    "Solve: {a}{m}{b}",
    "What is the result of {a} {m} {b}?",
    "What is the answer to {a}{m}{b}?",
    "Work out {a} {m} {b}.",
    "I need to know {a} {m} {b}.",
    "Question: {a} {m} {b}",
    "({a}{m}{b})",
    "({a} {m} {b})",
    "Could you please compute {a}{m}{b} for me?",
    "Please calculate {a} {m} {b}.",
)
_WORD_FORMS = (
    "What is {a} {w} {b}?",
    "What is {a} {w} {b}",
    "what is {a} {w} {b}?",
    "what's {a} {w} {b}",
    "How much is {a} {w} {b}?",
    "how much is {a} {w} {b}",
    "What does {a} {w} {b} make?",
    "What does {a} {w} {b} equal?",
    "{a} {w} {b}",
    "{a} {w} {b}?",
    "{a} {w} {b} is",
    "{a} {w} {b} equals",
    "Calculate {a} {w} {b}.",
    "Tell me, what is {a} {w} {b}?",
    "Can you tell me how much {a} {w} {b} is?",
)
_SUM_FORMS = (
    "Add {a} and {b}.",
    "add {a} and {b}",
    "Add {a} to {b}.",
    "What is the sum of {a} and {b}?",
    "what is the sum of {a} and {b}",
    "Find the sum of {a} and {b}.",
    "What do you get if you add {a} and {b}?",
    "What do {a} and {b} make?",
    "How much are {a} and {b} together?",
    "What is {a} and {b}?",
    "If I add {b} to {a}, what do I get?",
    "What is {b} more than {a}?",
    "What is {a} and {b} added together?",
    "What are {a} and {b} together?",
    "Put {a} and {b} together.",
)
_DIFFERENCE_FORMS = (
    "Subtract {b} from {a}.",
    "subtract {b} from {a}",
    "Take {b} away from {a}.",
    "Take {b} from {a}.",
    "What is left if you take {b} from {a}?",
    "What do you get if you subtract {b} from {a}?",
    "If I take {b} away from {a}, what do I get?",
    "What is {b} less than {a}?",
)
_APART_FORMS = (
    "What is the difference between {a} and {b}?",
    "what is the difference of {a} and {b}",
    "How far apart are {a} and {b}?",
    "Find the difference between {a} and {b}.",
)
_BEFORE = ("", "", "", "", "", "", "Please: ", "Hi! ", "Hello. ", "Quick question: ", "Hey, ")
_AFTER = ("", "", "", "", "", "", "", " Answer with a number.", " Please.", " Thanks!")
_MINUS_SIGNS = ("-", "-", "-", "-", "-", "\u2212", "\u2013")


def _dress(rng: Random, question: str) -> str:
    if rng.random() < 0.75:
        return question
    before, after = rng.choice(_BEFORE), rng.choice(_AFTER)
    if after and question[-1] not in ".?":
        after = "." + after if question[-1].isalnum() else after
    return before + question + after


def ask(rng: Random, x: int, y: int, minus: bool) -> Exchange:
    """One question for x + y or x - y in a drawn phrasing, and its answer in digits."""
    a, b = str(x), str(y)
    if rng.random() < 0.12:
        a, b = number_word(x), number_word(y)
    draw = rng.random()
    answer = x - y if minus else x + y
    if a == str(x) and draw < 0.62:
        sign = rng.choice(_MINUS_SIGNS) if minus else "+"
        question = rng.choice(_SIGN_FORMS).format(a=a, b=b, m=sign)
    elif draw < 0.82:
        word = rng.choice(("minus", "minus", "take away", "less")) if minus else "plus"
        question = rng.choice(_WORD_FORMS).format(a=a, b=b, w=word)
    elif not minus:
        question = rng.choice(_SUM_FORMS).format(a=a, b=b)
    elif draw < 0.94:
        question = rng.choice(_DIFFERENCE_FORMS).format(a=a, b=b)
    else:
        question = rng.choice(_APART_FORMS).format(a=a, b=b)
        answer = abs(answer)
    if question[0].isalpha() and not question[0].isupper() and rng.random() < 0.4:
        question = question[0].upper() + question[1:]
    return _dress(rng, question), str(answer)


def _counted(rng: Random) -> Exchange:
    """A question in words about somebody who gets or gives away some of a thing."""
    x, y = pair(rng, 31)
    name, other = rng.choice(GIRLS), rng.choice(BOYS)
    things = rng.choice(FRUITS + COLLECTED)
    if rng.random() < 0.4:
        return _mine(rng, x, y, things)
    if rng.random() < 0.5:
        told = rng.choice(
            (
                f"{name} has {x} {things} and gets {y} more.",
                f"{name} has {x} {things}. {other} gives her {y} more.",
                f"{name} found {x} {things} in the morning and {y} in the evening.",
            )
        )
        asked = f"How many {things} does {name} have now?"
        answer = x + y
    else:
        x, y = max(x, y), min(x, y)
        told = rng.choice(
            (
                f"{other} has {x} {things} and gives away {y}.",
                f"{other} had {x} {things}. He lost {y} of them.",
                f"There were {x} {things}. {other} had them all and gave {y} to {name}.",
            )
        )
        asked = f"How many {things} does {other} have now?"
        answer = x - y
    return f"{told} {asked}", str(answer)


def _mine(rng: Random, x: int, y: int, things: str) -> Exchange:
    """The same about the one who asks."""
    if rng.random() < 0.5:
        told = rng.choice(
            (
                f"I have {x} {things} and find {y} more.",
                f"I have {x} {things} and you give me {y} more.",
                f"If I have {x} {things} and get {y} more,",
                f"If you have {x} {things} and buy {y} more,",
            )
        )
        who = "do you" if "you have" in told else "do I"
        asked, answer = f"how many {things} {who} have?", x + y
    else:
        x, y = max(x, y), min(x, y)
        told = rng.choice(
            (
                f"I have {x} {things} and lose {y}.",
                f"I had {x} {things} and gave away {y}.",
                f"If I have {x} {things} and eat {y},",
                f"If you have {x} {things} and sell {y},",
                f"There are {x} {things} and we take {y} away.",
            )
        )
        asked, answer = rng.choice(("how many are left?", f"how many {things} are left?")), x - y
    if told.endswith("."):
        asked = asked[0].upper() + asked[1:]
    return f"{told} {asked}", str(answer)


def _signed(rng: Random) -> Exchange:
    """A sum or difference whose first or second number is negative."""
    x, y = pair(rng, 31)
    forms = (
        (f"-{x} + {y}", y - x),
        (f"-{x} - {y}", -x - y),
        (f"{x} + -{y}", x - y),
        (f"{x} - -{y}", x + y),
    )
    text, answer = rng.choice(forms)
    if rng.random() < 0.5:
        text = text.replace(" ", "")
    return rng.choice(("What is {}?", "{}", "What is {}", "{} =")).format(text), str(answer)


def _three(rng: Random) -> Exchange:
    """The sum of three one-digit numbers."""
    while True:
        x, y, z = (rng.randint(0, 9) for _ in range(3))
        if not any(is_held_out(*p) for p in ((x, y), (y, z), (x, z), (x + y, z), (x, y + z))):
            break
    sign = rng.choice(("+", " + ", " plus "))
    form = rng.choice(("What is {}?", "{}", "How much is {}?", "what is {}", "Calculate {}."))
    return form.format(f"{x}{sign}{y}{sign}{z}"), str(x + y + z)


def _other(rng: Random) -> Exchange:
    """Products, quotients, doubles, comparisons, counting on, and numbers that are too big."""
    draw = rng.random()
    if draw < 0.1:
        x, y = rng.randint(0, 10), rng.randint(1, 10)
        form = rng.choice(("What is {}?", "{}", "How much is {}?", "what is {}", "Calculate {}."))
        return form.format(f"{x * y}{rng.choice(('/', ' / ', ' divided by '))}{y}"), str(x)
    if draw < 0.15:
        return _three(rng)
    if draw < 0.22:
        return _signed(rng)
    if draw < 0.4:
        x, y = rng.randint(0, 10), rng.randint(0, 10)
        sign = rng.choice(("*", " * ", " x ", " times ", " times "))
        form = rng.choice(("What is {}?", "{}", "How much is {}?", "what is {}", "Calculate {}."))
        return form.format(f"{x}{sign}{y}"), str(x * y)
    if draw < 0.5:
        x, y = pair(rng)
        if x == y:
            return f"Is {x} the same as {y}?", "Yes."
        form = rng.choice(("Which is bigger, {} or {}?", "Which number is bigger: {} or {}?"))
        if rng.random() < 0.5:
            return form.format(x, y), str(max(x, y))
        return form.replace("bigger", "smaller").format(x, y), str(min(x, y))
    if draw < 0.7:
        x = rng.randint(1, 98)
        while is_held_out(x, 1):
            x = rng.randint(1, 98)
        if rng.random() < 0.5:
            return rng.choice(
                (f"What number comes after {x}?", f"What comes after {x}?", f"Count on from {x}.")
            ), str(x + 1)
        return rng.choice((f"What number comes before {x}?", f"What comes before {x}?")), str(x - 1)
    if draw < 0.8:
        x = rng.randint(0, 99)
        if rng.random() < 0.5:
            return f"Write {number_word(x)} in digits.", str(x)
        return f"Write {x} in words.", number_word(x)
    if draw < 0.86:
        x = rng.randint(1, 50)
        while is_held_out(x, x):
            x = rng.randint(1, 50)
        if rng.random() < 0.5:
            return f"What is half of {2 * x}?", str(x)
        return rng.choice((f"Double {x}.", f"What is twice {x}?")), str(2 * x)
    if draw < 0.9:
        top = rng.randint(3, 20)
        return rng.choice((f"Count to {top}.", f"Count from 1 to {top}.", f"count to {top}")), (
            ", ".join(str(n) for n in range(1, top + 1)) + "."
        )
    x = rng.randint(LIMIT, rng.choice((130, 200, 1000, 9999, 999999)))
    y = rng.choice((rng.randint(0, 99), rng.randint(LIMIT, rng.choice((200, 999, 99999)))))
    if rng.random() < 0.5:
        x, y = y, x
    question = rng.choice(_SIGN_FORMS).format(a=x, b=y, m=rng.choice("+-*/"))
    return question, "Those numbers are too big for me."


def exchange(rng: Random) -> Exchange:
    """A drawn arithmetic question and its answer."""
    draw = rng.random()
    if draw < 0.09:
        return _counted(rng)
    if draw < 0.19:
        return _other(rng)
    x, y = pair(rng)
    return ask(rng, x, y, rng.random() < 0.55)


def statement(rng: Random) -> str:
    """A sum or difference as a plain line: "7 + 5 = 12"."""
    x, y = pair(rng)
    minus = rng.random() < 0.5
    sign, answer = ("-", x - y) if minus else ("+", x + y)
    if rng.random() < 0.3:
        word = "minus" if minus else "plus"
        return f"{x} {word} {y} is {answer}."
    space = rng.choice(("", " "))
    return f"{x}{space}{sign}{space}{y}{space}={space}{answer}"


def unknown_word(rng: Random) -> Exchange:
    """A sum with a made-up word in it, which has no answer."""
    return f"What is {rng.randint(0, 99)} plus {made_up(rng)}?", "I do not know."


def held_out_questions(form: str = "What is {a}{m}{b}?") -> list[tuple[str, str, bool]]:
    """Every held-out question in one phrasing: text, answer, and whether it is a difference.

    Each pair gives its sum in both orders and its difference in both orders.
    """
    questions = []
    for x, y in sorted(held_out()):
        for a, b in {(x, y), (y, x)}:
            questions.append((form.format(a=a, b=b, m="+"), str(a + b), False))
            questions.append((form.format(a=a, b=b, m="-"), str(a - b), True))
    return questions
