# ruff: noqa: SIM905
"""Questions about the everyday facts of everyday.py, and the plain sentences that state them."""

from __future__ import annotations

from .everyday import (
    BABIES,
    CAPITALS,
    COLORS,
    DAYS,
    FOOD,
    JOBS,
    KINDS,
    LEGS,
    LETTERS,
    LIVES,
    MIXED,
    MONTHS,
    OPPOSITES,
    SEASONS,
    SHAPES,
    SINGLE,
    SIZES,
    SOUNDS,
)
from .words import Random, a, capital, made_up, plural

Exchange = tuple[str, str]


def _capitals(rng: Random) -> tuple[str, str, str]:
    country = rng.choice(list(CAPITALS))
    city = CAPITALS[country]
    if rng.random() < 0.15:
        form = rng.choice(("Where is {}?", "In which country is {}?"))
        return form.format(city), f"{city} is in {country}.", f"{city} is in {country}."
    form = rng.choice((
        "What is the capital of {}?", "What is the capital of {}?", "What's the capital of {}?",
        "what is the capital of {}", "Which city is the capital of {}?", "The capital of {}?",
        "Name the capital of {}.", "Tell me the capital of {}.", "capital of {}",
        "Do you know the capital of {}?",
    ))  # fmt: skip
    fact = f"The capital of {country} is {city}."
    return form.format(country), fact, fact


def _colors(rng: Random) -> tuple[str, str, str]:
    if rng.random() < 0.2:
        pair = rng.choice(list(MIXED))
        x, y = rng.sample(pair, 2)
        form = rng.choice(
            ("What do you get if you mix {} and {}?", "What color do {} and {} make?")
        )
        answer = capital(f"{MIXED[pair]}.")
        return form.format(x, y), answer, f"If you mix {x} and {y}, you get {MIXED[pair]}."
    thing = rng.choice(list(COLORS))
    form = rng.choice(("What color is {}?", "What color is {}?", "What colour is {}?",
                       "what color is {}", "Which color is {}?",
                       "Tell me the color of {}."))  # fmt: skip
    return form.format(thing), capital(COLORS[thing]) + ".", f"{capital(thing)} is {COLORS[thing]}."


def _opposites(rng: Random) -> tuple[str, str, str]:
    word = rng.choice(list(OPPOSITES))
    other = OPPOSITES[word]
    form = rng.choice(("What is the opposite of {}?", "What is the opposite of {}?",
                       "what is the opposite of {}", "Opposite of {}?",
                       "Tell me the opposite of {}."))  # fmt: skip
    return form.format(word), capital(other) + ".", f"The opposite of {word} is {other}."


def _animals(rng: Random) -> tuple[str, str, str]:
    draw = rng.random()
    if draw < 0.2:
        animal = rng.choice(list(SOUNDS))
        form = rng.choice(("What does {} say?", "What sound does {} make?"))
        return (form.format(a(animal)), capital(SOUNDS[animal]) + ".",
                f"{capital(a(animal))} says {SOUNDS[animal]}.")  # fmt: skip
    if draw < 0.4:
        animal = rng.choice(list(BABIES))
        form = rng.choice(("What is a baby {} called?", "What do you call a baby {}?"))
        return (form.format(animal), capital(a(BABIES[animal])) + ".",
                f"A baby {animal} is called {a(BABIES[animal])}.")  # fmt: skip
    if draw < 0.6:
        animal = rng.choice(list(LEGS))
        form = rng.choice(("How many legs does {} have?", "How many legs has {}?",
                           "how many legs does {} have"))  # fmt: skip
        return (
            form.format(a(animal)),
            LEGS[animal],
            f"{capital(a(animal))} has {LEGS[animal]} legs.",
        )
    if draw < 0.78:
        animal = rng.choice(list(FOOD))
        form = rng.choice(("What does {} eat?", "What do {s} eat?", "What do {s} like to eat?"))
        many = capital(plural(animal))
        fact = f"{many} eat {FOOD[animal]}."
        return form.format(a(animal), s=plural(animal)), fact, fact
    if draw < 0.92:
        animal = rng.choice(list(LIVES))
        many = "fish" if animal == "fish" else plural(animal)
        where = LIVES[animal].replace("in a web", "in webs").replace("in a nest", "in nests")
        fact = f"{capital(many)} live {where}."
        form = rng.choice(("Where does {} live?", "Where do {s} live?"))
        return form.format(a(animal), s=many), fact, fact
    small, big = sorted(rng.sample(range(len(SIZES)), 2))
    x, y = rng.sample((SIZES[small], SIZES[big]), 2)
    form = rng.choice(("Which is bigger, {} or {}?", "What is bigger: {} or {}?"))
    fact = f"{capital(a(SIZES[big]))} is bigger than {a(SIZES[small])}."
    return form.format(a(x), a(y)), fact, fact


def _order(rng: Random) -> tuple[str, str, str]:
    names, what = rng.choice(((DAYS, "day"), (MONTHS, "month"), (SEASONS, "season"),
                              (list(LETTERS), "letter")))  # fmt: skip
    at = rng.randrange(len(names))
    step = rng.choice((1, -1))
    if what == "letter" and not 0 <= at + step < len(names):
        step = -step
    other = names[(at + step) % len(names)]
    word = "after" if step == 1 else "before"
    form = rng.choice((f"What {what} comes {word} {{}}?", f"Which {what} comes {word} {{}}?",
                       f"What comes {word} {{}}?", f"Which {what} is {word} {{}}?"))  # fmt: skip
    fact = f"{capital(other)} comes {word} {names[at]}."
    return form.format(names[at]), capital(other) + ".", fact


def _things(rng: Random) -> tuple[str, str, str]:
    draw = rng.random()
    if draw < 0.25:
        job = rng.choice(list(JOBS))
        fact = f"{capital(a(job))} {JOBS[job]}."
        return rng.choice((f"What does {a(job)} do?", f"What is the job of {a(job)}?")), fact, fact
    if draw < 0.65:
        kind = rng.choice(list(KINDS))
        true = rng.random() < 0.5
        source = kind if true else rng.choice([k for k in KINDS if k != kind])
        thing = rng.choice(KINDS[source])
        name = thing if source == "color" else a(thing)
        if kind == "animal" and source in ("bird", "fish"):
            true = True
        if thing == "orange":
            name, true = "a lemon", kind == "fruit"
        verdict = "Yes." if true else "No."
        fact = f"{capital(name)} is {a(kind)}." if true else f"{capital(name)} is not {a(kind)}."
        return f"Is {name} {a(kind)}?", verdict if rng.random() < 0.5 else f"{verdict} {fact}", fact
    if draw < 0.8:
        kind = rng.choice(list(KINDS))
        thing = rng.choice([x for x in KINDS[kind] if x != "orange"])
        name = thing if kind == "color" else a(thing)
        fact = f"{capital(name)} is {a(kind)}."
        return f"What is {name}?", fact, fact
    shape = rng.choice(list(SHAPES))
    form = rng.choice(("How many sides does {} have?", "How many corners does {} have?"))
    return form.format(a(shape)), SHAPES[shape], f"{capital(a(shape))} has {SHAPES[shape]} sides."


_MISSING = (
    "What is the capital of {W}?", "what is the capital of {W}", "Where is {W}?",
    "Who is {W} {V}?", "What is {w}?", "What is {a}?", "What does {a} eat?",
    "What is the opposite of {w}?", "What color is {a}?", "How many legs does {a} have?",
    "Who wrote {W}?", "When was {W} {V} born?", "How old is {W}?", "What does {w} mean?",
    "Explain {w} to me.", "Who won the {W} Cup?", "How far is {W} from here?",
    "What happened in {y}?", "Who was king in {y}?", "What is the price of {a}?",
    "How do I install {W}?", "Write a program in {W}.", "Translate {w} into {W}.",
    "What is the weather like in {W}?", "What will happen tomorrow?", "What time is it?",
    "What day is it today?", "How tall is {W} {V}?", "Who invented the {w}?", "What is in my bag?",
    "Who is the president of {W}?", "How many people live in {W}?", "What did I do yesterday?",
)  # fmt: skip


_ABSTRACT = """love time life music happiness truth money science history politics art war math
physics philosophy religion justice freedom beauty energy gravity electricity""".split()
_OPEN = (
    "What is {t}?", "Why is there {t}?", "Explain {t}.", "What do you think about {t}?",
    "Tell me about {t}.", "What is the meaning of {t}?", "Who invented {t}?", "How does {t} work?",
    "What is {n}% of {m}?", "What is the square root of {n}?", "What is {n} to the power of {m}?",
    "What should I cook today?", "What should I do?", "How do I fix my car?", "Where are my keys?",
    "Who won the game?", "What is the best movie?", "What is the news today?", "Why?", "How?",
    "How do I become rich?", "Who is my neighbor?", "Where do I live?", "How old am I?",
    "What am I thinking?", "What will I be when I grow up?", "What is in the box?",
    "Who discovered {t}?", "When will it rain?", "How much does it cost?", "What is your secret?",
)  # fmt: skip


def unknown(rng: Random) -> Exchange:
    """A question about something that no table states."""
    if rng.random() < 0.3:
        number, other_number = rng.randint(2, 99), rng.randint(2, 999)
        question = rng.choice(_OPEN).format(t=rng.choice(_ABSTRACT), n=number, m=other_number)
        return _dress(rng, question), "I do not know."
    word, other = made_up(rng), made_up(rng).capitalize()
    question = rng.choice(_MISSING).format(
        w=word, W=word.capitalize(), V=other, a=a(word), y=rng.randint(1000, 2100)
    )
    return _dress(rng, question), "I do not know."


_TABLES = (
    (_capitals, 5), (_colors, 3), (_opposites, 3), (_animals, 5), (_order, 3), (_things, 3),
)  # fmt: skip
_DRAWN = [table for table, weight in _TABLES for _ in range(weight)]


def _draw(rng: Random) -> tuple[str, str, str]:
    if rng.random() < 0.3:
        questions, answer, fact = rng.choice(SINGLE)
        question = rng.choice(questions)
        return question, answer, fact
    return rng.choice(_DRAWN)(rng)


_BEFORE = (
    "Hi! ",
    "Hello. ",
    "Please tell me: ",
    "Quick question: ",
    "I have a question. ",
    "Hey, ",
)
_AFTER = (" Please.", " Answer in one word.", " Thanks!", " Be brief.", " Tell me.")


def _dress(rng: Random, question: str) -> str:
    draw = rng.random()
    if draw < 0.08:
        return question.lower().rstrip("?.")
    if draw < 0.12:
        return question.rstrip("?.")
    if draw < 0.16:
        return rng.choice(_BEFORE) + question
    if draw < 0.18 and question[-1] in ".?":
        return question + rng.choice(_AFTER)
    return question


def exchange(rng: Random) -> Exchange:
    """A drawn question about a fact and its answer."""
    question, answer, fact = _draw(rng)
    if rng.random() < 0.02:
        return rng.choice(("Tell me a fact.", "Tell me something.", "Do you know a fact?")), fact
    return _dress(rng, question), answer


def statement(rng: Random) -> str:
    """A drawn fact as a plain sentence."""
    return _draw(rng)[2]
