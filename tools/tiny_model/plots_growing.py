"""Plots of every day: growing, making, learning, telling the truth, counting, sleeping."""

from __future__ import annotations

from . import arithmetic
from .telling import Teller
from .words import COLLECTED, COLORS, FLOWERS, OUTDOORS, a, capital, number_word


def seed(t: Teller) -> None:
    h, rng = t.hero, t.rng
    plant = rng.choice(FLOWERS)
    who, _ = t.parent()
    t.topics += ["a seed", a(plant), "a garden", "being patient"]
    t.one_day(
        t.pick(
            f"{h.name} found a tiny seed on the ground",
            f"{h.his} {who} gave {h.name} a little seed",
        )
    )
    t.say(
        f'"What will it be?" asked {h.name}. "Wait and see," said {h.his} {who}.',
        f"{h.name} wanted to know what would grow from it.",
    )
    t.say(
        f"{capital(h.he)} made a hole in the soft ground, put the seed in and gave it water.",
        f"So {h.he} put it in the garden and covered it with earth.",
    )
    t.say(
        "The first day, nothing happened. The second day, nothing happened.",
        f"Every morning {h.name} looked, but there was only brown earth.",
        f"{h.name} waited and waited. It was so hard to wait!",
    )
    t.say(
        f'"Maybe my seed is asleep," {h.he} said. But {h.he} kept giving it water.',
        f'"It will never grow," said {h.name}. "Be patient," said {h.his} {who}. '
        '"Good things take time."',
    )
    t.say(
        "Then one morning, there was a small green leaf!",
        "After a week, a little green tip came out of the ground.",
    )
    t.say(
        "The sun shone, the rain fell, and the plant grew and grew.",
        "Day after day it grew taller.",
    )
    t.say(
        f"At last it was {a(f'big, beautiful {plant}')}.",
        f"By the end of summer, {h.name} had the biggest {plant} of all.",
    )
    t.close(
        f"{h.name} showed it to everybody and was very proud.",
        f"{h.name} kept its seeds, so that more could grow next year.",
        f"{h.name} learned that good things take time.",
    )


_SKILLS = (
    ("ride a bike", "fell off", "went all the way down the street"),
    ("swim", "swallowed water", "swam across the whole pond"),
    ("fly a kite", "lost the string", "made the kite dance high in the sky"),
    ("skate", "fell on the ice", "made a big circle on the ice"),
    ("play the drum", "hit the wrong beat", "played a whole song"),
    ("climb the big tree", "slid down", "sat on the highest branch"),
    ("whistle", "only blew air", "whistled like a bird"),
    ("bake bread", "burned it", "took a golden bread out of the oven"),
    ("dance", "stepped on a foot", "turned round and round in time"),
)


def skill(t: Teller) -> None:
    h = t.hero
    goal, fail, success = t.rng.choice(_SKILLS)
    coach, _ = t.parent()
    coach_name = f"{h.his} {coach}"
    t.topics += [f"learning to {goal}", f"{a(h.kind)} who learns to {goal}", "not giving up"]
    t.say(
        f"{h.name} wanted to learn to {goal}.",
        f"More than anything, {h.name} wanted to {goal}.",
        f"All of {h.his} friends could {goal}, but {h.name} could not.",
    )
    t.one_day(f"{h.name} tried for the first time")
    t.say(
        f"{capital(h.he)} {fail}.",
        f"It went wrong. {capital(h.he)} {fail}.",
    )
    t.say(
        f"{capital(h.he)} tried again, and {h.he} {fail} again.",
        f"The second time was not better: {h.he} {fail} once more.",
    )
    t.say(
        f'"I will never learn it," said {h.name}.',
        f'"It is too hard!" cried {h.name}.',
    )
    t.say(
        f'"Everybody starts like that," said {coach_name}. "Try again tomorrow."',
        f'"You are better than you were this morning," said {coach_name}. "Do not give up."',
    )
    t.say(
        f"So {h.name} practiced every day, a little longer each time.",
        "Day after day, they practiced together.",
        f"On Monday it was hard. On Tuesday it was less hard. On Friday, {h.name} smiled.",
    )
    t.say(
        f"And then it happened: {h.name} {success}!",
        f"One week later, {h.name} {success}.",
    )
    t.say(
        f'"I can do it!" shouted {h.name}.',
        f"Everybody clapped, and {coach_name} clapped the loudest.",
    )
    t.close(
        f"{h.name} was proud, because {h.he} had not given up.",
        "If you keep trying, hard things become easy.",
        f"Now {h.name} helps others to learn it too.",
    )


def wish(t: Teller) -> None:
    h, f = t.hero, t.friend()
    found, spirit = t.rng.choice(
        (
            ("an old lamp", "the lamp"),
            ("a shiny stone", "the stone"),
            ("a golden fish", "the fish"),
            ("a silver bell", "the bell"),
            ("a talking tree", "the tree"),
            ("a magic ring", "the ring"),
        )
    )
    want = t.pick("a mountain of candy", "a castle", "a room full of toys", "a bag of gold")
    t.topics += ["a wish", "magic", found, f"{a(h.kind)} and {found}"]
    t.one_day(f"{h.name} found {found} {t.place()}")
    t.say(
        f'{capital(spirit)} spoke. "You have one wish," it said.',
        f'Suddenly {spirit} said, "I will give you one wish. Think well!"',
    )
    t.say(
        f"{h.name} could not believe it. {capital(h.he)} could wish for {want}!",
        f'"I could have {want}," thought {h.name}.',
    )
    t.say(
        f"But then {h.he} thought of {f.full}, who was sick and could not play.",
        f"Then {h.name} remembered {h.his} friend {f.full}. {f.name} had been ill for days.",
    )
    t.say(
        f'"I wish that {f.name} gets well," {h.he} said.',
        f'{h.name} did not think for long. "Please make {f.name} well again," {h.he} said.',
    )
    t.say(
        f'"That is a good wish," said {spirit}, and there was a bright light.',
        "There was a flash of light, and everything was quiet again.",
    )
    t.say(
        f"{h.name} ran to {f.name}'s house as fast as {h.he} could.",
        f"When {h.name} came to {f.name}'s house, the door flew open.",
    )
    t.say(
        f'"I feel fine!" said {f.name}. "Let us go and play!"',
        f"{f.name} was up and dancing around the room.",
    )
    t.close(
        f"{h.name} did not get {want}, but {h.he} was happier than a king.",
        f"A healthy friend is worth more than {want}.",
        f"{h.name} never told anybody about the wish.",
    )


def collecting(t: Teller) -> None:
    h, f, rng = t.hero, t.friend(), t.rng
    things = rng.choice(COLLECTED)
    where = rng.choice(list(OUTDOORS.values()))
    first, more = arithmetic.story_pair(rng)
    total = first + more
    w1, w2, w3 = number_word(first), number_word(more), number_word(total)
    if rng.random() < 0.3:
        w1, w2, w3 = str(first), str(more), str(total)
    t.topics += ["counting", things, f"{a(h.kind)} who likes {things}"]
    t.say(
        f"{h.name} loved to collect {things}.",
        f"{h.name} liked {things} more than anything else.",
    )
    t.one_day(f"{h.name} went out and found {w1} {things} {where}")
    t.say(
        f"{capital(h.he)} put them into a bag and walked on.",
        f"They were all beautiful, and {h.he} put them in a basket.",
    )
    t.say(
        f"On the way home, {h.he} met {f.full}. {f.name} looked sad.",
        f"Then {f.full} came by. {capital(f.he)} had a basket too.",
    )
    t.say(
        f'"I found only {w2}," said {f.name}. "It is not enough."',
        f'"I have {w2} {things}," said {f.name}, "and I do not know what to do with them."',
    )
    t.say(
        f'"Let us put them together," said {h.name}.',
        f'{h.name} had an idea. "Let us put ours in one pile," {h.he} said.',
    )
    t.say(
        f"They counted them. {capital(w1)} and {w2} make {w3}. They had {w3} {things}!",
        f'"{capital(w1)} and {w2} are {w3}," said {h.name}. "Now we have {w3} {things}!"',
    )
    t.say(
        f"With the {things}, they made a big picture on the ground.",
        f"They laid the {things} in a circle, and it looked like a sun.",
    )
    t.close(
        "Everybody who came by stopped and smiled.",
        "Two friends together have more than each one alone.",
        f"{f.name} was not sad any more.",
    )


def stuck_high(t: Teller) -> None:
    h, f = t.hero, t.friend(t.pick("elephant", "bird", "monkey", "bear", "horse", "owl"))
    toy = t.pick("kite", "balloon", "ball", "hat", "paper plane")
    color = t.rng.choice(COLORS)
    t.topics += [a(toy), f"{a(toy)} in a tree"]
    t.one_day(f"{h.name} was playing with {a(f'{color} {toy}')} {t.place()}")
    t.say(
        f"A strong wind came and carried the {toy} into a tall tree.",
        f"Whoosh! The wind took the {toy} and put it on top of a tree.",
    )
    t.say(
        f"{h.name} jumped as high as {h.he} could, but the tree was too tall.",
        f"{h.name} shook the tree, but the {toy} did not come down.",
    )
    t.say(
        f"{capital(h.he)} took a long stick, but it was not long enough.",
        f"{capital(h.he)} threw a small stone, but it missed.",
    )
    t.say(
        f'"I will never get my {toy} back," {h.he} said.',
        f"{h.name} looked up at the {toy} and felt sad.",
    )
    t.say(
        f"Then {a(f.kind)} named {f.name} came along the path.",
        f'"What are you looking at?" asked {f.full}.',
    )
    t.say(
        f'"My {toy} is up there," said {h.name}. "Can you help me, please?"',
        f"{h.name} pointed at the tree and told {f.him} everything.",
    )
    t.say(
        f'"That is easy for me," said {f.name}, and soon the {toy} was down.',
        f"{f.name} reached the {toy} in a moment and brought it down.",
    )
    t.say(
        f'"Thank you, {f.name}!" said {h.name}. "Do you want to play with me?"',
        f'"How can I thank you?" asked {h.name}. "Let me play too," said {f.name}.',
    )
    t.close(
        f"So they played with the {color} {toy} all day long.",
        f"{h.name} learned that it is good to ask for help.",
        f"{h.name} had the {toy} back, and a new friend too.",
    )


ALL = (seed, skill, wish, collecting, stuck_high)
