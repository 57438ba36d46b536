"""The state of one story while it is told."""

from __future__ import annotations

from .words import OUTDOORS, WEATHER, Character, Random, a, capital, character


class Teller:
    """Collects a story's sentences; every choice comes from one random source.

    `topics` gathers what a request for this story could name: "a lost ball", "being brave".
    """

    def __init__(self, rng: Random, hero: Character) -> None:
        self.rng = rng
        self.hero = hero
        self.parts: list[str] = []
        self.topics: list[str] = []
        self.names = [hero.name]

    def say(self, *variants: str) -> None:
        self.parts.append(variants[int(self.rng.random() * len(variants))])

    def pick(self, *choices: str) -> str:
        return choices[int(self.rng.random() * len(choices))]

    def maybe(self, chance: float, *variants: str) -> None:
        if self.rng.random() < chance:
            self.say(*variants)

    def place(self) -> str:
        """A phrase such as "in the park"."""
        return self.rng.choice(list(OUTDOORS.values()))

    def friend(self, kind: str | None = None) -> Character:
        """Somebody else, whose name nobody in the story has yet."""
        other = character(self.rng, kind, tuple(self.names))
        self.names.append(other.name)
        if other.kind != self.hero.kind:
            self.topics.append(f"{a(self.hero.kind)} and {a(other.kind)}")
        return other

    def parent(self) -> tuple[str, str]:
        """A grown-up of the hero's family and that person's pronoun."""
        return self.rng.choice(
            (("mother", "she"), ("father", "he"), ("grandmother", "she"), ("grandfather", "he"))
        )

    def one_day(self, clause: str) -> None:
        """Starts the plot: `clause` is a sentence without its capital and full stop."""
        weather = self.rng.choice(WEATHER)
        start = self.pick(
            "One day, ", f"One {weather} day, ", f"One {weather} morning, ", "One morning, ", ""
        )
        self.parts.append(f"{start}{clause}." if start else f"{capital(clause)}.")

    def close(self, *variants: str) -> None:
        """The last sentence: the plot's own ending, sometimes with a closing phrase."""
        h = self.hero
        self.say(*variants)
        self.maybe(
            0.35,
            f"{h.name} was very happy.",
            f"From that day on, {h.name} smiled every day.",
            "And they all lived happily ever after.",
            f"That night, {h.name} slept very well.",
            "It was the best day ever.",
            f"And {h.name} never forgot that day.",
            "The end.",
        )
