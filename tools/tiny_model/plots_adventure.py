"""Plots of adventure: maps, races, riddles, strange guests, storms and journeys."""

from __future__ import annotations

from .telling import Teller
from .words import COLORS, FOODS, OUTDOORS, a, capital


def treasure(t: Teller) -> None:
    h, f = t.hero, t.friend()
    where = t.rng.choice(list(OUTDOORS.values()))
    mark = t.pick("a tall oak", "three gray stones", "an old boat", "a broken wall")
    inside, lesson = t.rng.choice(
        (
            ("old letters and pictures", "The best treasures are the ones that tell a story"),
            ("a mirror", "You are the treasure"),
            ("a hundred seeds", "A treasure is what you make of it"),
            ("two wooden flutes", "Music is better than gold"),
            ("a big bag of marbles", "A treasure is for sharing"),
        )
    )
    t.topics += ["a treasure", "a treasure map", "an adventure", f"{a(h.kind)} with a map"]
    t.one_day(
        t.pick(
            f"{h.name} found an old map in a bottle",
            f"an old piece of paper fell out of a book, and {h.name} saw that it was a map",
            f"{h.name} found a map under the floor",
        )
    )
    t.say(
        f'"Look, {f.name}!" {h.he} called. "It shows a treasure!"',
        f"{capital(h.he)} showed it to {h.his} friend {f.full}.",
    )
    t.say(
        f"On the map, a red cross stood beside {mark} {where}.",
        f"The map showed {mark} {where}, and next to it a big red cross.",
    )
    t.say(
        "They packed some bread and a spade and went on their way.",
        f'"Let us find it!" said {f.name}. They left before breakfast.',
    )
    t.say(
        "They crossed a stream, climbed a hill and walked through a dark wood.",
        "The way was long. First they took a wrong turn and had to go back.",
        "The path was full of thorns, but they did not give up.",
    )
    t.say(
        f"At last they saw {mark}. {h.name} began to dig.",
        f'"There it is!" cried {h.name}. It was {mark}, as on the map.',
    )
    t.say(
        "They dug until they hit something hard. It was a small chest.",
        f"{f.name} found a small chest deep in the ground.",
    )
    t.say(
        f"{capital(h.his)} hands shook as {h.he} opened it. Inside there was no gold. "
        f"There was only {inside}."
        if inside.startswith("a ")
        else f"Inside there was no gold. There were {inside}.",
    )
    t.say(
        f'First {h.name} was sad, but then {f.name} laughed. "{lesson}," {f.he} said.',
        f'"{lesson}," said {f.name}, and {h.name} had to smile.',
    )
    t.close(
        "They took the chest home and kept it for ever.",
        f"{h.name} drew a new map, so that others could have an adventure too.",
        "The way there had been the best part of all.",
    )


def race(t: Teller) -> None:
    h = t.hero
    f = t.friend(t.pick("rabbit", "horse", "fox", "deer", "cheetah", "goose"))
    where = t.rng.choice(list(OUTDOORS))
    prize = t.pick("a golden cup", "a big cake", "a blue ribbon", "a basket of fruit")
    t.topics += ["a race", "winning and losing", "fair play"]
    t.one_day(f"there was a big race from the {where} to the old mill")
    t.say(
        f"The winner would get {prize}. {h.name} wanted to win it.",
        f"Everybody came to watch. The prize was {prize}.",
    )
    t.say(
        f'"I am the fastest," said {f.full}. "Nobody can beat me!"',
        f'{f.full} laughed at {h.name}. "You are much too slow," {f.he} said.',
    )
    t.say(
        f'"We will see," said {h.name} quietly.',
        f"{h.name} said nothing and went to the start.",
    )
    t.say(
        "One, two, three, go! They all ran as fast as they could.",
        "A bell rang, and the race began.",
    )
    if t.rng.random() < 0.5:
        t.say(
            f"{f.name} was far ahead. But then {f.he} fell over a stone and hurt {f.his} foot.",
            f"Near the mill, {f.name} stepped into a hole and could not get up.",
        )
        t.say(
            f"{h.name} could have won now. But {h.he} stopped.",
            f'"Ouch!" cried {f.name}. {h.name} heard it and turned around.',
        )
        t.say(
            f'"Lean on me," said {h.name}, and they walked on together.',
            f"{capital(h.he)} helped {f.name} up, and side by side they went on.",
        )
        t.say(
            "They crossed the line last, but everybody clapped for them.",
            "They came in last of all, and the crowd cheered louder than ever.",
        )
        t.close(
            f'"You are the real winner," said {f.name}. "Thank you."',
            f"{h.name} got no prize, but {h.he} got a friend.",
            f"{f.name} never laughed at anybody again.",
        )
    else:
        t.say(
            f"{f.name} was far ahead. {capital(f.he)} sat down to eat and looked at the clouds.",
            f"{f.name} was so sure of winning that {f.he} stopped to talk to everybody.",
        )
        t.say(
            f"{h.name} did not stop. {capital(h.he)} went on, one step after another.",
            f"{h.name} just kept going, and did not look left or right.",
        )
        t.say(
            f"When {f.name} looked up, {h.name} was almost there.",
            f"Too late {f.name} saw that {h.name} had passed {f.him}.",
        )
        t.say(
            f"{h.name} crossed the line first and won {prize}!",
            f"And the winner was {h.name}!",
        )
        t.close(
            f'"You ran well," said {f.name}. {h.name} shared the prize with {f.him}.',
            "Keep going, and you will get there.",
            f"{f.name} learned not to laugh at others.",
        )


def who_ate_it(t: Teller) -> None:
    h, f = t.hero, t.friend()
    food = t.rng.choice(FOODS)
    thief = t.pick("a mouse", "a crow", "a little hedgehog", "a squirrel", "a hungry raccoon")
    sign = {"mouse": "tiny footprints", "crow": "a black feather"}.get(
        thief.split()[-1], "a trail of crumbs"
    )
    t.topics += ["a mystery", f"a missing {food}", "a detective", f"{a(h.kind)} who asks questions"]
    t.one_day(f"{h.name} put {a(food)} on the window and went to wash {h.his} hands")
    t.say(
        f"When {h.he} came back, the {food} was gone.",
        f"A minute later, there was no {food} any more.",
    )
    t.say(
        f'"Who took my {food}?" asked {h.name}. "I will find out!"',
        f"{h.name} decided to become a detective.",
    )
    t.say(
        f'First {h.he} asked {f.full}. "It was not me," said {f.name}. "I was asleep."',
        f"{h.name} went to {f.full}, but {f.name} had not seen anything.",
    )
    t.say(
        f"Then {h.name} looked at the window with care. There was {sign}."
        if sign.startswith("a ")
        else f"Then {h.name} looked at the window with care. There were {sign}.",
    )
    t.say(
        f"{h.name} and {f.name} followed it across the yard, behind the shed, to a small hole."
        if sign.startswith("a ")
        else f"{h.name} and {f.name} followed them across the yard to a small hole.",
    )
    t.say(
        f"There sat {thief} with three hungry babies.",
        f"And who was there? It was {thief} and a family of little ones.",
    )
    t.say(
        '"I am sorry," said the thief. "My children had nothing to eat."',
        '"Please do not be angry," it said. "We were so hungry."',
    )
    t.say(
        f'"Next time, just ask," said {h.name}. "I like to share."',
        f"{h.name} could not be angry. {capital(h.he)} ran home and brought even more.",
    )
    t.close(
        f"From then on, there were always two pieces of {food} on the window.",
        "The mystery was solved, and nobody was hungry.",
        f'"You are a good detective," said {f.name}.',
    )


def snow(t: Teller) -> None:
    h, f = t.hero, t.friend()
    built = t.pick("a snowman", "a snow castle", "a snow bear", "a snow ship")
    noun = " ".join(built.split()[1:])
    nose = t.pick("a carrot", "a pine cone", "an old spoon")
    t.topics += ["snow", "winter", built, f"{a(h.kind)} in the snow"]
    t.say(
        f"{h.name} woke up, and the whole world was white.",
        f"In the night, it had snowed. {h.name} ran outside at once.",
    )
    t.say(
        f'{f.full} was already there. "Let us build {built}!" {f.he} said.',
        f'{h.name} knocked on {f.name}\'s door and called, "Let us build {built}!"',
    )
    t.say(
        "They rolled big balls of snow until their hands were cold.",
        "They pushed and pulled, and the snow squeaked under their feet.",
    )
    t.say(
        f"They put {nose} on it and gave it an old hat.",
        f"{f.name} found {nose}, and {h.name} gave it a red scarf.",
    )
    t.say(
        f'"It looks alive," whispered {h.name}.',
        f"It was the finest {noun} in town.",
    )
    t.say(
        f"But the next day, the sun was warm, and the {noun} got smaller and smaller.",
        f"Then the days grew warm, and drop by drop the {noun} went away.",
    )
    t.say(
        f'"Do not go," said {h.name} and began to cry.',
        f"{h.name} was very sad.",
    )
    t.say(
        f'"It is not gone," said {f.name}. "It is water now, and the water helps the flowers."',
        f'"It will come back next winter," said {f.name}. "It always does."',
    )
    t.close(
        f"In spring, a white flower grew where the {noun} had been.",
        f"{h.name} kept the hat safe for next year.",
        f"And when it snowed again, {h.name} was ready.",
    )


def strange_guest(t: Teller) -> None:
    h = t.hero
    guest = t.friend(t.pick("dragon", "giant", "robot", "ghost", "monster", "bear", "wolf"))
    skill, use = t.rng.choice(
        (
            ("keep a fire warm all night", "kept all the houses warm"),
            ("carry heavy logs", "built a new bridge for everybody"),
            ("sing very softly", "sang the babies to sleep"),
            ("tell the best stories", "told stories at the fire every night"),
            ("bake sweet bread", "baked bread for the whole village"),
        )
    )
    t.topics += [a(guest.kind), f"a friendly {guest.kind}", "not judging others"]
    t.one_day(f"{a(guest.kind)} came to the place where {h.name} lived")
    t.say(
        "Everybody was afraid. They closed their doors and hid under their beds.",
        f'"A {guest.kind}! Run!" they all cried.',
    )
    t.say(
        f"Only {h.name} stayed outside. {capital(h.he)} was afraid too, but also curious.",
        f"But {h.name} saw that the {guest.kind} looked tired and sad.",
    )
    t.say(
        f'"Why do you come here?" asked {h.name}.',
        f'"Who are you, and what do you want?" asked {h.name}.',
    )
    t.say(
        f'"I am {guest.name}," said the {guest.kind}. "I am looking for a home. '
        'Everybody runs away from me."',
        f'"My name is {guest.name}. I only want a friend," said the {guest.kind} softly.',
    )
    t.say(
        f'"What are you good at?" asked {h.name}. "I can {skill}," said {guest.name}.',
        f'"I can {skill}," said {guest.name}. "But nobody ever asks me."',
    )
    t.say(
        f"{h.name} took {guest.him} by the hand and called the others.",
        f'"Come out!" {h.name} called. "There is nothing to fear."',
    )
    t.say(
        "One after another, the doors opened.",
        "Slowly, the others came closer.",
    )
    t.say(
        f"{guest.name} stayed, and that winter {guest.he} {use}.",
        f"They let {guest.him} stay, and before long {guest.name} {use}.",
    )
    t.close(
        f"Nobody was afraid of {guest.name} any more.",
        "You cannot know somebody by the looks alone.",
        f"And it all began because {h.name} had asked a question.",
    )


def storm(t: Teller) -> None:
    h, f = t.hero, t.friend()
    boat = t.pick("a small boat", "a raft", "an old sailing boat")
    light = t.pick("a lighthouse", "a fire on the beach", "a lamp in a window")
    t.topics += ["a storm", "the sea", boat, f"{a(h.kind)} at sea"]
    t.one_day(f"{h.name} and {h.his} friend {f.full} went out in {boat}")
    t.say(
        "The sea was calm, and they could see fish in the clear water.",
        "They had bread and apples with them, and they sang a song.",
    )
    t.say(
        "But then dark clouds came, and the wind grew strong.",
        "Suddenly the sky turned black. A storm was coming!",
    )
    t.say(
        "The waves were as high as houses, and water came into the boat.",
        "The boat went up and down, up and down.",
    )
    t.say(
        f'"Hold on to me!" called {h.name}.',
        f'"What can we do?" cried {f.name}.',
    )
    t.say(
        f'"You row, and I will get the water out," said {h.name}. They worked as one.',
        f"{h.name} took one oar and {f.name} took the other. Left, right, left, right.",
    )
    t.say(
        f"Then {f.name} saw {light} far away.",
        f'"Look there!" said {f.name}. It was {light}.',
    )
    t.say(
        "They rowed toward the light until they felt the sand under the boat.",
        "With their last strength they reached the shore.",
    )
    t.say(
        "They were cold and wet, but they were safe.",
        f"{h.name} and {f.name} fell into the sand and laughed.",
    )
    t.close(
        "Alone they would not have made it, but together they did.",
        f"Later, {h.name} always looked at the sky before going out to sea.",
        "They told this story many, many times.",
    )


def star(t: Teller) -> None:
    h = t.hero
    color = t.rng.choice(COLORS)
    thing, word = t.rng.choice(
        (
            ("star", "fell from the sky"),
            ("cloud", "got stuck in a tree"),
            ("moonbeam", "lost its way"),
        )
    )
    way = t.pick("a long ladder", "a strong kite", "a friendly bird", "a big swing")
    t.topics += [f"a {thing}", "the sky", f"{a(h.kind)} and a {thing}", f"a little {thing}"]
    t.one_day(f"a small {thing} {word} and landed near {h.name}")
    t.say(
        f"It was soft and {color}, and it was crying.",
        f"It shone with a soft light, and a {color} tear ran down its face."
        if color != "orange"
        else "It shone with a warm light, but it looked sad.",
    )
    t.say(
        f'"I want to go back to the sky," said the {thing}.',
        f'"Can you help me?" asked the {thing}. "My family is up there."',
    )
    t.say(
        f'"Of course," said {h.name}. But how? The sky is very high.',
        f"{h.name} thought about it for a long time.",
    )
    t.say(
        f"First {h.he} threw it up as high as {h.he} could, but it came down again.",
        f"First {h.he} climbed the tallest tree, but it was not tall enough.",
    )
    t.say(
        f"Then {h.he} had a better idea: {way}!",
        f'"I know!" said {h.name}. "We need {way}."',
    )
    t.say(
        f"Up and up it went, until the {thing} was back in its place.",
        f"And it worked. Higher and higher went the {thing}, and then it was home.",
    )
    t.say(
        f'"Thank you, {h.name}!" it called from above.',
        f"The {thing} waved, and {h.name} waved back.",
    )
    t.close(
        f"Now, every night, the {thing} says good night to {h.name}.",
        f"When you look up, you may see it: it is the {thing} that smiles.",
        f"{h.name} never felt alone in the dark again.",
    )


def concert(t: Teller) -> None:
    h, f, g = t.hero, t.friend(), t.friend()
    instrument = t.pick("drum", "flute", "violin", "guitar", "trumpet", "bell")
    t.topics += ["music", f"a {instrument}", "a song", f"{a(h.kind)} who loves music"]
    t.say(
        f"{h.name} loved music and played the {instrument} all day long.",
        f"{h.name} had an old {instrument} and played it every evening.",
    )
    t.say(
        f'"It is too loud!" said {f.full}. "I cannot sleep."',
        f"But {f.full} did not like the noise at all.",
    )
    t.say(
        f"So {h.name} stopped playing, and the days became very quiet.",
        f"{h.name} was sad and put the {instrument} away.",
    )
    t.say(
        f'The next week, {g.full} asked, "Where is the music?"',
        f'"Why is there no music any more?" asked {g.full}.',
    )
    t.say(
        f'"It is so quiet now," said {f.name} too. "I miss it."',
        f"Even {f.name} could not sleep now, because it was too quiet.",
    )
    t.say(
        f'{f.name} went to {h.name}. "I am sorry. Please play for us," {f.he} said.',
        f'"Will you play again, but in the afternoon?" asked {f.name}.',
    )
    t.say(
        f"{h.name} smiled and took the {instrument} out.",
        f"{h.name} did not have to be asked twice.",
    )
    t.say(
        f"{capital(h.he)} played, {f.name} sang, and {g.name} danced.",
        f"They gave a concert, and everybody came to listen to {h.name}.",
    )
    t.close(
        "After that, there was music every afternoon and quiet every night.",
        f"{h.name} and {f.name} wrote a song together.",
        "When we talk to each other, there is always a way.",
    )


ALL = (treasure, race, who_ate_it, snow, strange_guest, storm, star, concert)
