"""Plots of kindness: things lost and found, friends, fears, help for others."""

from __future__ import annotations

from .telling import Teller
from .words import COLORS, FOODS, SMALL_ANIMALS, SPOTS, TOYS, a, capital


def lost_toy(t: Teller) -> None:
    h, rng = t.hero, t.rng
    color, toy = rng.choice(COLORS), rng.choice(TOYS)
    thing = f"{color} {toy}"
    helper = t.friend()
    first, second, third = rng.sample(SPOTS, 3)
    t.topics += [f"a lost {toy}", f"a {color} {toy}" if color != "orange" else f"an orange {toy}"]
    t.say(
        f"{h.name} had {a(thing)} and loved it very much.",
        f"{capital(h.his)} favorite thing in the world was {a(thing)}.",
        f"{h.name} played with {h.his} {thing} every day.",
    )
    t.one_day(
        t.pick(
            f"{h.name} could not find the {toy}",
            f"the {thing} was gone",
            f"{h.name} wanted to play, but the {toy} was not there",
        )
    )
    t.say(
        f"{capital(h.he)} looked {first}, but it was not there.",
        f'"Where is my {toy}?" {h.he} cried. {capital(h.he)} looked {first}. No {toy}.',
        f"{h.name} was very sad. {capital(h.he)} looked {first} and found nothing.",
    )
    t.say(
        f"Then {h.he} looked {second}, but it was not there either.",
        f"Next {h.he} looked {second}. Still no {toy}.",
        f"{capital(h.he)} searched {second} too, but there was no {toy}.",
    )
    t.say(
        f"Just then, {helper.full} came by.",
        f"{capital(a(helper.kind))} named {helper.name} saw that {h.name} was sad.",
        f"{helper.full} heard {h.him} cry.",
    )
    t.say(
        f'"What is wrong?" asked {helper.name}. "I lost my {toy}," said {h.name}.',
        f'"Why are you sad?" asked {helper.name}. "My {toy} is gone," said {h.name}.',
    )
    t.say(
        '"Do not worry. Let us look together!"',
        f'"I will help you," said {helper.name}.',
        f'"Two can search better than one," said {helper.name}.',
    )
    t.say(
        f"They looked everywhere. At last, {helper.name} looked {third}. There was the {thing}!",
        f"Together they searched high and low. Then they saw something {color} {third}. "
        f"It was the {toy}!",
        f"{helper.name} looked {third} and laughed. The {toy} was right there!",
    )
    t.say(
        f'"Thank you so much!" said {h.name}.',
        f"{h.name} jumped for joy and thanked {helper.name}.",
        f"{h.name} hugged {h.his} {toy} and then hugged {helper.name} too.",
    )
    t.close(
        "They played together until the sun went down.",
        f"From then on, {h.name} always put the {toy} in a safe place.",
        f"{h.name} and {helper.name} became good friends.",
    )


def new_friend(t: Teller) -> None:
    h, f, where = t.hero, t.friend(), t.place()
    game = t.pick("tag", "hide and seek", "ball", "catch", "a guessing game", "pirates")
    food = t.rng.choice(FOODS)
    t.topics += ["friends", "friendship", "making a friend", "a new friend"]
    t.say(
        f"{h.name} had no one to play with and felt lonely.",
        f"{h.name} was often alone and wished for a friend.",
        f"More than anything, {h.name} wanted a friend.",
    )
    t.one_day(
        t.pick(
            f"{h.name} saw {a(f.kind)} sitting alone {where}",
            f"{a(f.kind)} came and sat down {where}",
            f"{h.name} met {a(f.kind)} {where}",
        )
    )
    t.say(
        f"{h.name} was shy at first and did not know what to say.",
        f"{h.name} wanted to say hello, but {h.he} was too shy.",
        f"{capital(h.his)} heart beat fast.",
    )
    t.say(
        f'Then {h.he} took a deep breath. "Hello, I am {h.name}. What is your name?"',
        f'At last {h.he} said, "Hi! My name is {h.name}. Who are you?"',
    )
    t.say(
        f'"I am {f.name}," said the {f.kind} with a smile.',
        f'"My name is {f.name}," the {f.kind} said. "I am new here."',
    )
    t.say(
        f'{h.name} had {a(food)}. "Would you like half?" {h.he} asked. {f.name} said yes.',
        f"{h.name} broke {h.his} {food} in two and gave one half to {f.name}.",
        f'"Do you want to play {game}?" asked {h.name}. {f.name} nodded.',
    )
    t.say(
        f"They played {game} and laughed all afternoon.",
        f"Soon they were running and playing {game} together.",
        f"They played {game} until it was time to go home.",
    )
    t.say(
        f'"Will you come back tomorrow?" asked {f.name}. "Yes!" said {h.name}.',
        f'"That was fun," said {f.name}. "Let us do it again!"',
    )
    t.close(
        f"{h.name} and {f.name} were best friends from that day on.",
        f"{h.name} was not lonely any more.",
        f"Now {h.name} had a friend, and every day was a good day.",
    )


def sharing(t: Teller) -> None:
    h, f, where = t.hero, t.friend(), t.place()
    food = t.rng.choice(FOODS)
    t.topics += ["sharing", a(food), f"{a(h.kind)} who learns to share"]
    t.one_day(
        t.pick(
            f"{h.name} had {a(f'big {food}')} for lunch",
            f"{h.name} took {a(f'sweet {food}')} and went to eat it {where}",
            f"{h.name} was {where} with {a(f'fresh {food}')}",
        )
    )
    t.say(
        f"It smelled so good that {h.he} could not wait to eat it.",
        f'"This {food} is all for me," {h.he} said.',
        f"{capital(h.he)} sat down and wanted to take a bite.",
    )
    t.say(
        f"Then {f.full} came along. {capital(f.he)} looked very hungry.",
        f"A moment later, {a(f.kind)} named {f.name} came by. {capital(f.he)} had nothing to eat.",
    )
    t.say(
        f'"May I have some, please?" asked {f.name}.',
        f'"I am so hungry," said {f.name}. "Can you share with me?"',
    )
    t.say(
        f"{h.name} did not want to share. {capital(f.name)} walked away slowly.",
        f'"No, it is mine," said {h.name}. {f.name} looked down and was sad.',
        f"{h.name} held the {food} tight and said no.",
    )
    t.say(
        f"But then {h.name} thought about it. It is not nice to be hungry.",
        f"{h.name} looked at {h.his} {food}. It did not look so good any more.",
        f"{h.name} saw a tear on {f.name}'s face and felt bad.",
    )
    t.say(
        f'"Wait!" called {h.name}. "You can have half of it."',
        f'"I am sorry," said {h.name}. "Let us eat it together."',
    )
    t.say(
        f"They sat side by side and ate the {food}. It tasted better than ever.",
        f"{f.name} smiled, and the two of them ate every crumb.",
    )
    t.close(
        f"{h.name} learned that sharing makes things twice as good.",
        f'"Thank you," said {f.name}. "Tomorrow I will share with you."',
        f"From then on, {h.name} always shared with {f.name}.",
    )


_FEARS = (
    ("the dark", "a small lamp", "The dark is only the day taking a rest"),
    ("thunder", "a warm blanket", "Thunder is loud, but it cannot hurt you here"),
    ("deep water", "a round swimming ring", "The water will carry you if you stay calm"),
    ("high places", "a strong rope", "Do not look down, just take one step at a time"),
    ("the big slide", "a soft cushion", "It is over in a moment, and it is fun"),
    ("the old bridge", "a steady hand", "The bridge is strong and has stood for years"),
    ("loud noises", "a soft hat", "A noise is only a sound, and it goes away"),
)


def fear(t: Teller) -> None:
    h = t.hero
    what, gift, wisdom = t.rng.choice(_FEARS)
    who, he = t.parent()
    t.topics += ["being brave", f"{a(h.kind)} who was afraid of {what}", "courage"]
    t.say(
        f"{h.name} was afraid of {what}.",
        f"There was one thing that {h.name} did not like: {what}.",
        f"{h.name} was brave most of the time, but {h.he} was afraid of {what}.",
    )
    t.say(
        f"Every time, {h.he} closed {h.his} eyes and ran away.",
        f"The others laughed, and that made {h.name} sad.",
        f"{capital(h.he)} did not want anybody to know.",
    )
    t.one_day(f"{h.his} {who} sat down beside {h.him}")
    t.say(
        f'"What makes you so quiet?" asked {h.his} {who}.',
        f'"I can see that something is wrong," {he} said.',
    )
    t.say(f'"I am afraid of {what}," said {h.name} in a small voice.')
    t.say(
        f'"{wisdom}," said {h.his} {who}, and gave {h.him} {gift}.',
        f'{capital(h.his)} {who} gave {h.him} {gift} and said, "{wisdom}."',
    )
    t.say(
        f"The next day, {h.name} wanted to try. {capital(h.his)} legs were shaking.",
        f"{h.name} took a deep breath and decided to try.",
    )
    t.say(
        f"{capital(h.he)} held on to what {h.his} {who} had said, and counted to three. "
        "One, two, three!",
        f"Slowly, very slowly, {h.he} went on. {capital(h.he)} did not run away.",
    )
    t.say(
        "And nothing bad happened at all.",
        "It was not so bad. It was even a little fun!",
        f'"I did it!" cried {h.name}.',
    )
    t.close(
        f"{h.name} was not afraid of {what} any more.",
        f"{capital(h.his)} {who} was very proud of {h.him}.",
        f"{h.name} learned that being brave means trying even when you are afraid.",
    )


_TRAPS = (
    ("stuck in the mud", "a long branch", "pulled the little one out of the mud"),
    ("caught in a net", "a sharp stone", "cut the net open"),
    ("stuck in a hole", "a piece of rope", "lifted the little one out of the hole"),
    ("caught in a thorn bush", "two thick gloves", "bent the thorns aside"),
    ("stuck under a fallen branch", "a strong stick", "lifted the branch"),
)


def rescue(t: Teller) -> None:
    h, where = t.hero, t.place()
    animal = t.rng.choice([x for x in SMALL_ANIMALS if x != h.kind])
    trouble, tool, deed = t.rng.choice(_TRAPS)
    t.topics += ["helping", f"{a(animal)} in trouble", "kindness", f"{a(h.kind)} and {a(animal)}"]
    t.one_day(
        t.pick(
            f"{h.name} heard a small cry {where}",
            f"{h.name} was {where} when {h.he} heard somebody call for help",
        )
    )
    t.say(
        f"It was {a(animal)}. It was {trouble}.",
        f"There was a tiny {animal}, {trouble}.",
    )
    t.say(
        '"Help me, please!" it said. "I cannot get out."',
        f'"Please help me," said the {animal}.',
        f"The {animal} was tired and very much afraid.",
    )
    t.say(
        f'"Do not be afraid," said {h.name}. "I will help you."',
        f'{h.name} did not wait. "Hold still," {h.he} said.',
    )
    t.say(
        f"First {h.he} pulled with all {h.his} strength, but it did not work.",
        f"{capital(h.he)} tried once, and {h.he} tried twice, but it was too hard.",
    )
    t.say(
        f"Then {h.he} had an idea. {capital(h.he)} found {tool} and {deed}.",
        f"{h.name} looked around and found {tool}. With it, {h.he} {deed}.",
    )
    t.say(
        f'"Thank you!" said the {animal}. "I will never forget this."',
        f"The {animal} was free! It danced around {h.name}.",
    )
    if t.rng.random() < 0.6:
        t.say(
            f"Some days later, {h.name} lost {h.his} way in the fog. The {animal} came and "
            f"showed {h.him} the way home.",
            f"A week later, {h.name} was sick in bed. The {animal} brought {h.him} sweet berries.",
            f"When winter came, {h.name} had nothing to eat. The {animal} came with a bag of nuts.",
        )
    t.close(
        "One good deed brings another.",
        f"{h.name} and the {animal} stayed friends for ever.",
        "Even a small friend can be a great help.",
    )


def left_out(t: Teller) -> None:
    h, f, where = t.hero, t.friend(), t.place()
    flaw, use, need = t.rng.choice(
        (
            ("was too small", "crawled through the little hole", "the key had fallen into a hole"),
            ("was too loud", "shouted so loudly that everybody heard it", "a fire broke out"),
            (
                "was too slow",
                "walked so carefully that nothing broke",
                "the eggs had to be carried",
            ),
            ("was too tall", "reached up and took it down", "the kite hung in a high tree"),
            ("asked too many questions", "asked the right person", "nobody knew the way home"),
        )
    )
    t.topics += ["being different", f"{a(h.kind)} who was different", "a small hero"]
    t.say(
        f"The others {where} said that {h.name} {flaw}.",
        f'"You cannot play with us," the others said. They thought that {h.name} {flaw}.',
    )
    t.say(
        f"So {h.name} sat alone and watched them play.",
        f"This made {h.name} feel very sad.",
        f"Only {f.full} was nice to {h.him}.",
    )
    t.one_day(f"there was trouble: {need}")
    t.say(
        "Everybody tried to help, but nobody could.",
        "All of them ran around, and no one knew what to do.",
        f"{f.full} tried first, but it did not work.",
    )
    t.say(
        f'"Let me try," said {h.name}. The others were surprised.',
        f'"I think I can help," {h.name} said softly.',
    )
    t.say(
        f"{h.name} {use}.",
        f"Then {h.name} {use}, and all was well.",
    )
    t.say(
        f'"Hurray for {h.name}!" they all shouted.',
        '"We are sorry," said the others. "Please play with us."',
    )
    t.close(
        f"Now {h.name} always had somebody to play with.",
        f"What had made {h.him} different was what made {h.him} strong.",
        "They learned that everybody is good at something.",
    )


def wrong_way(t: Teller) -> None:
    h, wise = t.hero, t.friend(t.pick("owl", "turtle", "fox", "deer", "hedgehog"))
    lure = t.pick("a blue butterfly", "a shiny beetle", "a white rabbit", "a little firefly")
    sign = t.pick("the stream", "the North Star", "the white stones", "the sound of the bell")
    t.topics += ["getting lost", f"{a(h.kind)} who got lost", "a forest", f"a wise {wise.kind}"]
    t.one_day(f"{h.name} saw {lure} and followed it")
    t.say(
        "It went over the hill and into the forest.",
        f"Deeper and deeper into the forest they went, and {h.name} did not look back.",
        f'"Wait for me!" called {h.name}, and ran between the tall trees.',
    )
    t.say(
        f"Then it was gone, and {h.name} did not know where {h.he} was.",
        "When it flew away, all the trees looked the same.",
    )
    t.say(
        f"It grew dark. {h.name} sat down on a stone and began to cry.",
        f'"I want to go home," said {h.name}, but nobody answered.',
    )
    t.say(
        f'"Who is crying here?" asked a kind voice. It was {a(wise.kind)} named {wise.name}.',
        f"{capital(a(f'wise old {wise.kind}'))} named {wise.name} looked down at {h.him}.",
    )
    t.say(
        f'"I am lost," said {h.name}. "Can you help me?"',
        f"{h.name} told {wise.him} what had happened.",
    )
    t.say(
        f'"Follow {sign}," said {wise.name}. "It will lead you home."',
        f'"If you follow {sign}, you will soon be home," said the {wise.kind}.',
    )
    t.say(
        f"{h.name} thanked {wise.name} and did just that.",
        f"So {h.name} walked and walked, and {h.he} was not afraid any more.",
    )
    t.say(
        f"Soon {h.he} saw the light of {h.his} own window.",
        f"At last {h.he} saw {h.his} home. {capital(h.his)} family ran to meet {h.him}.",
    )
    t.close(
        f"{h.name} promised never to run off alone again.",
        "Home had never felt so good.",
        f"The next day, {h.name} brought {wise.name} a cake to say thank you.",
    )


ALL = (lost_toy, new_friend, sharing, fear, rescue, left_out, wrong_way)
