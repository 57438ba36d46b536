"""Plots at home: rain, broken things, birthdays, baking, a cold, and going to sleep."""

from __future__ import annotations

from .telling import Teller
from .words import COLORS, FRUITS, TOYS, a, capital


def rainy_day(t: Teller) -> None:
    h, f = t.hero, t.friend()
    made = t.pick("a tent from two blankets", "a ship from old boxes", "a castle from pillows")
    what = made.split()[1]
    t.topics += ["a rainy day", "rain", f"a {what}", "a rainbow"]
    t.one_day(
        t.pick(
            f"{h.name} wanted to play outside, but it was raining",
            "it rained and rained",
            f"{h.name} looked out of the window and saw dark clouds",
        )
    )
    t.say(
        f'"This is a bad day," said {h.name}. "I cannot do anything."',
        f"{h.name} put {h.his} nose on the window and watched the drops run down.",
    )
    t.say(
        f"Then {f.full} knocked on the door. {capital(f.he)} was wet from head to toe.",
        f"Soon {h.his} friend {f.full} came to visit.",
    )
    t.say(
        f'"I have an idea," said {f.name}. "Let us build something!"',
        f'"We do not need the sun to have fun," said {f.name}.',
    )
    t.say(
        f"They made {made}.",
        f"The two friends worked hard and made {made}.",
    )
    t.say(
        f"They climbed into the {what} and told each other funny stories.",
        f"In their {what} they sailed to far lands and met lions and kings.",
        f"They sat in the {what}, ate warm bread and sang songs.",
    )
    t.say(
        "When they looked outside again, the rain had stopped.",
        "They had so much fun that they did not see the sun come out.",
    )
    t.say(
        "A big rainbow stood over the hills.",
        "There was a rainbow in the sky, with all its colors.",
    )
    t.close(
        f'"I like rainy days," said {h.name}.',
        f"{h.name} learned that a rainy day can be the best day of all.",
        "They ran out and jumped in every puddle.",
    )


def broken(t: Teller) -> None:
    h = t.hero
    thing = t.pick("vase", "cup", "plate", "lamp", "clock", "teapot")
    who, he = t.parent()
    toy = t.rng.choice(TOYS[:7])
    t.topics += ["telling the truth", "honesty", f"a broken {thing}"]
    t.one_day(f"{h.name} was playing with {a(toy)} inside the house")
    t.say(
        f"Crash! {capital(h.his)} {who}'s favorite {thing} broke into many pieces.",
        f"Suddenly there was a loud crash. {capital(h.he)} had broken the {thing}.",
    )
    t.say(
        f"{h.name} was scared. {capital(h.he)} hid the pieces under the rug.",
        f"{h.name} did not want anybody to know. {capital(h.he)} hid the pieces in a box.",
    )
    t.say(
        f'In the evening, {h.his} {who} asked, "Where is the {thing}?"',
        f'Soon {h.his} {who} came home. "Has anybody seen the {thing}?" {he} asked.',
    )
    t.say(
        f'"I do not know," said {h.name}, but {h.his} tummy felt funny.',
        f"{h.name} said nothing and looked at the floor.",
    )
    t.say(
        f"That night {h.he} could not sleep. A lie feels heavy, like a stone.",
        f"All evening {h.name} felt bad. {capital(h.he)} did not even want dessert.",
    )
    t.say(
        f'At last {h.he} went to {h.his} {who}. "I broke the {thing}," {h.he} said. "I am sorry."',
        f'Then {h.he} told the truth. "It was me. I am so sorry," said {h.name}.',
    )
    t.say(
        f'"Thank you for telling me," said {h.his} {who}. "That was very brave."',
        f'{capital(h.his)} {who} gave {h.him} a hug. "A {thing} can be mended," {he} said.',
    )
    t.close(
        "Together they glued the pieces, and it was almost as good as new.",
        f"{h.name} felt light and happy again.",
        f"{h.name} learned that it is always best to tell the truth.",
    )


def birthday(t: Teller) -> None:
    h, f = t.hero, t.friend()
    color = t.rng.choice(COLORS)
    gift = t.rng.choice(TOYS)
    t.topics += ["a birthday", "a surprise", "a party", f"{a(h.kind)}'s birthday"]
    t.say(
        f"It was {h.name}'s birthday.",
        f"{h.name} woke up with a smile, for today was {h.his} birthday.",
    )
    t.say(
        f'But nobody said a word about it. {f.full} only said, "I am busy today."',
        f"{capital(h.he)} ran to {f.full}, but {f.name} had no time.",
    )
    t.say(
        "At the next house, the door stayed closed.",
        f"All of {h.his} friends were whispering, and they stopped when {h.he} came near.",
    )
    t.say(
        f'"They have all forgotten me," thought {h.name}. {capital(h.he)} walked home slowly.',
        f"{h.name} was sad. A birthday alone is no birthday at all.",
    )
    t.say(
        f"{capital(h.he)} opened the door. It was dark inside.",
        f"At home it was very quiet. {h.name} opened the door.",
    )
    t.say(
        f'"Surprise!" shouted everybody. The room was full of {color} balloons.',
        f'"Happy birthday, {h.name}!" they all called. There were candles and {color} flowers.',
    )
    t.say(
        f"There was a big cake, and {f.name} gave {h.him} {a(f'new {gift}')}.",
        f"They had made a cake, and there was a present too: {a(f'{color} {gift}')}.",
    )
    t.say(
        '"We did not forget you," said ' + f'{f.name}. "We were getting everything ready!"',
        f"{h.name} laughed until {h.his} eyes were wet.",
    )
    t.close(
        "They danced and sang until late in the evening.",
        f"It was the best birthday {h.name} had ever had.",
        f"Then {h.name} blew out the candles and made a wish.",
    )


def bedtime(t: Teller) -> None:
    h = t.hero
    who, _ = t.parent()
    sound = t.pick("the wind", "the rain", "an owl", "the old clock", "the sea")
    t.topics += ["bedtime", "sleep", "the moon", "the night"]
    t.one_day(f"{h.name} played so much that {h.he} was still awake at night")
    t.say(
        f"{capital(h.he)} lay in bed, but {h.he} could not sleep.",
        f"{capital(h.he)} turned left and {h.he} turned right, but sleep did not come.",
    )
    t.say(
        f"First {h.he} counted sheep, but the sheep made {h.him} laugh.",
        f"First {h.he} drank some warm milk, but {h.he} was still awake.",
    )
    t.say(
        f"Then {h.he} listened to {sound} for a while.",
        f"Then {h.he} looked at the stars through the window.",
    )
    t.say(
        f'"Are you not asleep?" asked {h.his} {who} at the door.',
        f"{capital(h.his)} {who} heard {h.him} and came in.",
    )
    t.say(
        f'"My head is full of the day," said {h.name}.',
        f'"I am not tired at all," said {h.name}, and yawned.',
    )
    t.say(
        f'"Then give the day to the moon," said {h.his} {who}. "It will keep it for you."',
        f"So {h.his} {who} sat down and sang a soft song about the moon.",
    )
    t.say(
        f"{h.name} closed {h.his} eyes and thought of all the good things of the day, one by one.",
        f"{h.name} said good night to the moon, to the stars and to {h.his} toes.",
    )
    t.close(
        f"And before {h.he} could say one more word, {h.name} was asleep.",
        "Soon the house was quiet, and everybody was asleep.",
        f"The moon shone softly on {h.name}, who was dreaming already.",
    )


def baking(t: Teller) -> None:
    h, f = t.hero, t.friend()
    cake = t.pick("an apple pie", "a big cake", "a pot of soup", "a tray of cookies", "pancakes")
    mishap, fix = t.rng.choice(
        (
            ("dropped the bag of flour, and everything was white", "cleaned the kitchen"),
            ("used salt and not sugar, and it tasted awful", "started again from the beginning"),
            ("forgot the oven, and it came out black", "made a new one"),
            ("spilled the milk all over the floor", "wiped the floor"),
        )
    )
    t.topics += ["baking", "cooking", cake, f"{a(h.kind)} who cooks"]
    t.one_day(f"{h.name} wanted to make {cake} for {h.his} friend {f.name}")
    t.say(
        f"{capital(h.he)} put on a big white hat and got to work.",
        f"{h.name} had never done it before, but {h.he} wanted to try.",
    )
    t.say(
        f"But {h.he} {mishap}.",
        f"Then something went wrong. {h.name} {mishap}.",
    )
    t.say(
        f'"Oh no!" cried {h.name}. "What will I do now?"',
        f"{h.name} sat down on the floor and wanted to cry.",
    )
    t.say(
        f"Just then, {f.full} looked in at the window and began to laugh.",
        f"At that moment, {f.full} came in and saw it all.",
    )
    t.say(
        f'"Let me help you," said {f.name}. Together they {fix}.',
        f"{f.name} took a spoon and smiled. The two of them {fix}.",
    )
    t.say(
        "This time they did everything slowly and with care.",
        f"{f.name} read what to do, and {h.name} did it.",
    )
    t.say(
        "Soon the whole house smelled wonderful.",
        "An hour later it was ready, and it looked just right.",
    )
    t.close(
        "They ate it all while it was still warm.",
        f'"It is twice as good when you make it with a friend," said {h.name}.',
        "They gave a piece to everybody in the street.",
    )


def feeling_ill(t: Teller) -> None:
    h, f = t.hero, t.friend()
    gift = t.pick("a bowl of hot soup", "a picture", "a bunch of flowers", "a funny book")
    fruit = t.rng.choice(FRUITS)
    t.topics += ["being sick", f"a sick {h.kind}", "taking care of a friend"]
    t.one_day(f"{h.name} woke up and did not feel well")
    t.say(
        f"{capital(h.his)} head was hot and {h.his} legs were weak.",
        f"{capital(h.he)} had a cold and could not stop sneezing.",
    )
    t.say(
        '"You must stay in bed today," said the doctor.',
        f"So {h.he} had to stay in bed, and it was very boring.",
    )
    t.say(
        f"Outside, the others were playing. {h.name} could hear them laugh.",
        f"{h.name} looked at the wall and felt alone.",
    )
    t.say(
        f"Then there was a knock on the door. It was {f.full} with {gift}.",
        f"In the afternoon, {f.full} came with {gift}.",
    )
    t.say(
        f'"I thought you might be sad," said {f.name}.',
        f'"This is for you," said {f.name}. "It will make you feel better."',
    )
    t.say(
        f"{f.name} sat on the bed, and they played a quiet game.",
        f"They ate {fruit} and told each other what they would do in summer.",
    )
    t.say(
        f"When {f.name} went home, {h.name} felt much better.",
        f"That night {h.name} slept well, and in the morning {h.he} was healthy again.",
    )
    t.close(
        f"A week later, {f.name} was sick, and {h.name} knew just what to do.",
        "A friend is the best medicine.",
        f'"Thank you for coming," said {h.name}. "You are a good friend."',
    )


ALL = (rainy_day, broken, birthday, bedtime, baking, feeling_ill)
