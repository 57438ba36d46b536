"""Short stories: a hero, a plot with a beginning, a trouble and an end, and a request for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import plots_adventure, plots_growing, plots_home, plots_kindness
from .telling import Teller
from .words import ADJECTIVES, HOMES, PEOPLE, WEATHER, Random, a, capital, character

PLOTS: tuple[Callable[[Teller], None], ...] = (
    plots_kindness.ALL + plots_growing.ALL + plots_home.ALL + plots_adventure.ALL
)

_REQUESTS = (
    "Tell me a story about {}.",
    "Tell me a story about {}",
    "tell me a story about {}",
    "Tell me a short story about {}.",
    "Can you tell me a story about {}?",
    "Please tell me a story about {}.",
    "Write a story about {}.",
    "Write a short story about {}.",
    "Write me a story about {}.",
    "write a story about {}",
    "I want a story about {}.",
    "I would like to hear a story about {}.",
    "A story about {}, please.",
    "Do you know a story about {}?",
    "Could you write a little story about {}?",
    "Make up a story about {}.",
    "Tell a tale about {}.",
    "Story about {}",
)
_OPEN_REQUESTS = (
    "Tell me a story.",
    "Tell me a story",
    "tell me a story",
    "Tell me a short story.",
    "Please tell me a story.",
    "Can you tell me a story?",
    "Write a story.",
    "Write a short story.",
    "I want to hear a story.",
    "Once upon a time",
    "Do you know a story?",
    "Tell me another story.",
    "A story, please.",
    "story",
    "Story",
    "Tell me a bedtime story.",
    "Tell a story.",
    "tell a story",
    "Tell me a nice story.",
    "Tell me a story, please.",
    "Give me a story.",
    "Write me a story.",
)


@dataclass(frozen=True)
class Story:
    """A finished story and the topics that a request for it may name."""

    text: str
    topics: tuple[str, ...]


def _open(teller: Teller) -> None:
    h, rng = teller.hero, teller.rng
    trait = rng.choice(ADJECTIVES)
    teller.topics += [a(f"{trait} {h.kind}")] * 2
    home = rng.choice(list(HOMES.values()))
    kind = a(f"{trait} {h.kind}")
    own = "" if h.kind in PEOPLE else f" {h.kind}"
    teller.say(
        f"Once upon a time, there was {kind} named {h.name}.",
        f"Once upon a time, there was {kind} named {h.name}.",
        f"Once upon a time, {kind} named {h.name} lived {home}.",
        f"Once upon a time there was {kind} called {h.name}.",
        f"Once there was {kind} named {h.name}.",
        f"There was once {kind} named {h.name} who lived {home}.",
        f"{h.name} was {kind}.",
        f"{h.name} was {kind} who lived {home}.",
        f"In a faraway land, there lived {kind} named {h.name}.",
        f"Long ago, {kind} named {h.name} lived {home}.",
        f"Once upon a time, {home}, there lived {kind} named {h.name}.",
    )
    if h.kind not in PEOPLE and rng.random() < 0.2:
        teller.say(
            f"{h.name} was not like every other{own}.",
            f"All the others loved the little{own}.",
            f"Everybody knew the{own} by name.",
        )


def tell(rng: Random, kind: str | None = None) -> Story:
    """A whole story; `kind` fixes what its hero is."""
    hero = character(rng, kind)
    teller = Teller(rng, hero)
    _open(teller)
    rng.choice(PLOTS)(teller)
    named = [f"{a(hero.kind)} named {hero.name}", f"{a(hero.kind)} called {hero.name}", hero.name]
    topics = [a(hero.kind)] * 4 + named + [f"{hero.name} the {hero.kind}"]
    return Story(" ".join(teller.parts), tuple(topics + teller.topics))


def told(rng: Random) -> tuple[str, str]:
    """A request for a story and the story."""
    story = tell(rng)
    if rng.random() < 0.25:
        return rng.choice(_OPEN_REQUESTS), story.text
    topic = rng.choice(story.topics)
    return rng.choice(_REQUESTS).format(topic), story.text


def scene(rng: Random) -> str:
    """A few sentences that start in the middle, for plain text without a story's opening."""
    teller = Teller(rng, character(rng))
    h = teller.hero
    where = teller.place()
    weather = rng.choice(WEATHER)
    teller.say(
        f"{h.name} went for a walk {where}.",
        f"The {weather} day began, and {h.full} was {where}.",
        f"It was a {weather} day. {h.full} was {where}.",
        f"{h.name} and {h.his} friends were {where}.",
        f"The little {h.kind} was {where}. {capital(h.his)} name was {h.name}.",
        f"One {weather} morning, {h.name} woke up early and went out.",
    )
    rng.choice(PLOTS)(teller)
    return " ".join(teller.parts)
