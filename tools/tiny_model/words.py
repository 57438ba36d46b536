# ruff: noqa: SIM905
"""Word lists and the small pieces of English grammar that the generator uses."""

from __future__ import annotations

import random
from dataclasses import dataclass

Random = random.Random

GIRLS = """Lily Mia Emma Anna Zoe Ella Ruby Nora Lucy Rosa Ivy Clara Maya Eva Sara Tina Molly Daisy
Hannah Julia Nina Poppy Alice Amy Kate Bella Luna Holly Grace Leah""".split()
BOYS = """Tom Ben Max Leo Sam Jack Tim Finn Noah Oscar Theo Adam Hugo Felix Jonas Paul Peter Nick
Dan Luke Omar Emil Carl Toby Henry Oliver Milo Otto Ravi Simon""".split()

PEOPLE = {"girl": "she", "boy": "he"}
ROYALS = {"princess": "she", "prince": "he", "queen": "she", "king": "he", "witch": "she"}
GENDERED = ROYALS | {"man": "he", "woman": "she", "hen": "she", "rooster": "he", "mermaid": "she"}
PETS = "dog cat rabbit pony hamster parrot puppy kitten".split()
ANIMALS = """fox bear mouse squirrel frog duck owl hedgehog turtle deer elephant lion monkey penguin
tiger sheep goat pig horse cow bird bee snail goose beaver otter panda koala zebra whale dolphin
wolf hen giraffe crocodile snake spider ant camel donkey rooster swan crow bat raccoon crab octopus
fish shark seal lizard hippo kangaroo caterpillar ladybug butterfly chicken""".split()
FANTASY = """dragon robot fairy giant unicorn wizard mermaid pirate ghost snowman monster dinosaur
alien knight elf troll spaceship train car boat cloud star tree flower teapot lamp clock pumpkin
farmer baker sailor teacher painter doctor cook child man woman baby""".split()
SMALL_ANIMALS = "bird mouse rabbit squirrel hedgehog duckling kitten butterfly ladybug frog".split()

ADJECTIVES = """little small young happy kind brave clever curious gentle funny friendly quiet
cheerful playful shy busy""".split()
COLORS = "red blue green yellow orange purple pink white brown golden".split()

TOYS = """ball kite doll boat train car drum balloon puzzle robot bear hat scarf book bell whistle
wagon bucket spoon top""".split()
FOODS = """apple cookie sandwich pear banana cake muffin carrot peach pie pancake orange plum
cupcake""".split()
FRUITS = "apples pears plums berries cherries nuts oranges peaches".split()
FLOWERS = "sunflower rose tulip pumpkin tomato daisy strawberry".split()
COLLECTED = """shells stones leaves flowers apples berries nuts feathers buttons acorns stars
marbles""".split()
OUTDOORS = {
    "park": "in the park",
    "garden": "in the garden",
    "forest": "in the forest",
    "beach": "at the beach",
    "meadow": "in the meadow",
    "farm": "on the farm",
    "lake": "by the lake",
    "river": "by the river",
    "hill": "on the hill",
    "playground": "at the playground",
}
HOMES = {
    "small house": "in a small house",
    "village": "in a quiet village",
    "town": "in a little town",
    "farm": "on a big farm",
    "forest": "near a green forest",
    "hill": "on top of a hill",
    "river": "beside a river",
    "lake": "close to a blue lake",
    "castle": "in an old castle",
    "sea": "by the sea",
}
SPOTS = [
    "under the bed",
    "behind the door",
    "in the tall grass",
    "under a big leaf",
    "behind a tree",
    "under the table",
    "beside the fence",
    "in a hollow log",
    "behind a rock",
    "in the old box",
    "under the stairs",
    "next to the well",
]
WEATHER = ["sunny", "warm", "bright", "windy", "cool", "cold", "quiet", "lovely"]

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen""".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_ONSETS = "b br c ch d dr f fl g gl gr h j k kr l m n p pl qu r s sh sk st t th tr v w z".split()
_VOWELS = "a e i o u ai ee oo ia".split()
_CODAS = ["", "", "", "b", "ck", "d", "g", "l", "ll", "m", "n", "nd", "p", "r", "rk", "s", "t", "x"]
_UNCOUNTED = {"sheep": "sheep", "mouse": "mice", "deer": "deer", "goose": "geese", "wolf": "wolves"}


def number_word(value: int) -> str:
    """English words for an integer from -99 to 199."""
    if value < 0:
        return "minus " + number_word(-value)
    if value < 20:
        return _ONES[value]
    if value < 100:
        tens, ones = divmod(value, 10)
        return _TENS[tens - 2] + (f"-{_ONES[ones]}" if ones else "")
    rest = value - 100
    return "one hundred" + (f" and {number_word(rest)}" if rest else "")


def a(noun: str) -> str:
    """The noun phrase behind its indefinite article."""
    vowel = noun[0].lower() in "aeiou" and not noun.startswith("un")
    return f"an {noun}" if vowel else f"a {noun}"


def plural(noun: str) -> str:
    """The plural of a countable noun of these lists."""
    if noun in _UNCOUNTED:
        return _UNCOUNTED[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith(("s", "sh", "ch", "x")):
        return noun + "es"
    return noun + "s"


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def made_up(rng: Random) -> str:
    """A pronounceable word that is in no list, so that unknown words occur in training."""
    parts = (
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        for _ in range(rng.choice((1, 2, 2, 3)))
    )
    return "".join(parts)


def rare_name(rng: Random) -> str:
    """A name that is in no list: made up, or the halves of two names joined."""
    if rng.random() < 0.4:
        return made_up(rng).capitalize()
    x, y = rng.choice(GIRLS + BOYS), rng.choice(GIRLS + BOYS)
    return x[: rng.randint(1, len(x) - 1)] + y[rng.randint(1, len(y) - 1) :]


@dataclass(frozen=True)
class Character:
    """Somebody in a story: a name, what they are, and the pronouns that follow from it."""

    name: str
    kind: str
    he: str
    him: str
    his: str

    @property
    def full(self) -> str:
        """How a sentence first calls this character: "Nora the fox", but plain "Tom" for a boy."""
        return self.name if self.kind in PEOPLE else f"{self.name} the {self.kind}"


def character(rng: Random, kind: str | None = None, taken: tuple[str, ...] = ()) -> Character:
    """A character of the given kind, or of a drawn one, with a name that is not taken."""
    if kind is None:
        draw = rng.random()
        if draw < 0.42:
            kind = rng.choice(("girl", "boy"))
        elif draw < 0.62:
            kind = rng.choice(PETS)
        elif draw < 0.84:
            kind = rng.choice(ANIMALS)
        elif draw < 0.93:
            kind = rng.choice(FANTASY)
        elif draw < 0.96:
            kind = rng.choice(list(ROYALS))
        else:
            kind = made_up(rng)
    he = PEOPLE.get(kind) or GENDERED.get(kind) or rng.choice(("he", "she"))
    while True:
        name = rng.choice(BOYS if he == "he" else GIRLS)
        if rng.random() < 0.12:
            name = rare_name(rng)
        if name not in taken:
            break
    if he == "he":
        return Character(name, kind, "he", "him", "his")
    return Character(name, kind, "she", "her", "her")
