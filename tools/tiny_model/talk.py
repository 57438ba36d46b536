"""Small talk, who the model is, and questions whose answer stands in the conversation."""

from __future__ import annotations

from .words import (
    BOYS,
    COLORS,
    FOODS,
    GIRLS,
    PETS,
    SPOTS,
    TOYS,
    Random,
    a,
    capital,
    made_up,
    rare_name,
)

Exchange = tuple[str, str]

WHO = "I am a tiny model that comes with quantloom."
CAN = "I can tell short stories, answer simple questions, and add and subtract small numbers."

_FIXED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello", "Hello!", "hello", "Hi", "Hi!", "hi", "Hey", "hey", "Hello there!", "Hi there",
      "Good day!"), "Hello! How can I help you?"),
    (("Good morning!", "Good morning", "good morning"), "Good morning! How can I help you?"),
    (("Good afternoon!", "Good afternoon", "good afternoon"),
     "Good afternoon! How can I help you?"),
    (("Good evening!", "Good evening"), "Good evening! How can I help you?"),
    (("Good night!", "Good night"), "Good night! Sleep well."),
    (("Bye", "Bye!", "Goodbye", "Goodbye!", "See you later!", "bye"), "Goodbye!"),
    (("Thank you", "Thank you!", "Thanks", "Thanks!", "thanks", "Thank you very much!"),
     "You are welcome!"),
    (("How are you?", "how are you?", "How are you", "How are you today?", "How do you do?"),
     "I am fine, thank you."),
    (("Who are you?", "who are you", "who are you?", "What are you?", "What is your name?",
      "What's your name?", "what is your name", "Tell me about yourself.", "Are you a robot?",
      "Introduce yourself.", "What kind of model are you?", "Which model is this?"), WHO),
    (("What can you do?", "what can you do", "How can you help me?", "What do you know?",
      "Help", "help", "Help me.", "What are you good at?", "What should I ask you?"), CAN),
    (("Are you a person?", "Are you human?", "Are you alive?"), "No. " + WHO),
    (("How big are you?", "How many parameters do you have?", "How large are you?"),
     "I have about 8 million parameters."),
    (("Who made you?", "Who trained you?", "Where do you come from?"),
     "I was trained for quantloom, on text that its own tools wrote."),
    (("What is quantloom?", "What does quantloom do?", "what is quantloom"),
     "quantloom runs quantized language models from GGUF files."),
    (("What is GGUF?", "What is a GGUF file?", "what is gguf"),
     "GGUF is a file format for language models."),
    (("What is a model?", "What is a language model?"),
     "A language model is a program that writes text, one token after another."),
    (("Are you ChatGPT?", "Are you a chatbot?", "Are you an AI?", "Who am I talking to?"), WHO),
    (("What is your favorite color?", "What is your favorite animal?",
      "Do you have a favorite food?", "Do you have a favorite color?"),
     "I am only a small program, so I have no favorites."),
    (("Can you sing?", "Can you dance?", "Can you paint?", "Can you see me?", "Can you hear me?",
      "Do you sleep?", "Do you eat?"), "No. I can only read and write."),
    (("Write a poem.", "Write a poem about the sea.", "Write a song.", "Write a poem for me.",
      "Can you write code?", "Write a letter.", "Write a poem about love.", "Write some code."),
     "I do not know how to do that, but I can tell you a story."),
    (("Can you tell stories?", "Can you tell me stories?"), "Yes. Ask me for a story!"),
    (("Can you add?", "Can you calculate?", "Can you do math?", "Are you good at math?"),
     "I can add and subtract small numbers."),
    (("I am sad.", "I feel sad.", "I am tired.", "I am sick.", "I feel bad."),
     "I am sorry to hear that."),
    (("I am happy.", "I feel good.", "I am happy today!"), "I am glad to hear that."),
    (("I love you.", "You are great!", "You are nice.", "Good job!", "Well done!"),
     "Thank you!"),
    (("Are you smart?", "Are you clever?"), "I am small, but I try my best."),
    (("Do you like me?", "Do you like stories?", "Do you like to talk?"), "Yes, I do."),
    (("Tell me a joke.", "Tell me a joke", "Do you know a joke?", "Make me laugh."),
     "Why did the cookie go to the doctor? Because it felt crumbly."),
    (("Yes", "yes", "Yes.", "OK", "ok", "Okay", "Good.", "Great!", "Nice", "Cool"),
     "Good! What would you like to know?"),
    (("No", "no", "No.", "That is wrong.", "You are wrong."), "I am sorry."),
)  # fmt: skip


def exchange(rng: Random) -> Exchange:
    """A greeting, a thank-you, or a question about the model itself."""
    questions, answer = rng.choice(_FIXED)
    return rng.choice(questions), answer


def echo(rng: Random) -> Exchange:
    """A word to repeat or to spell."""
    word = rng.choice((rng.choice(GIRLS), rng.choice(TOYS), rng.choice(FOODS), made_up(rng)))
    draw = rng.random()
    if draw < 0.6:
        form = rng.choice(("Say {}.", "Repeat: {}", "Say the word {}.", "Please say {}."))
        return form.format(word), word
    if draw < 0.65:
        return rng.choice(("say {}", "repeat {}")).format(word), word
    form = rng.choice(("Spell {}.", "How do you spell {}?", "Spell the word {}."))
    return form.format(word), "-".join(word.upper())


def reading(rng: Random) -> Exchange:
    """A few told facts and a question that they answer."""
    x, y = rng.sample(GIRLS + BOYS, 2)
    if rng.random() < 0.15:
        x = rare_name(rng)
    toy, other = rng.sample(TOYS, 2)
    color, shade = rng.sample(COLORS, 2)
    spot, place = rng.sample(SPOTS, 2)
    food, meal = rng.sample(FOODS, 2)
    pet, animal = rng.sample(PETS, 2)
    told, asked, answer = rng.choice(
        (
            (
                f"{x} has {a(f'{color} {toy}')}. {y} has {a(f'{shade} {other}')}.",
                f"What color is the {toy}?",
                f"{capital(color)}.",
            ),
            (
                f"{x} has {a(f'{color} {toy}')}. {y} has {a(f'{shade} {other}')}.",
                f"Who has the {other}?",
                f"{y}.",
            ),
            (
                f"The {toy} is {spot}. The {other} is {place}.",
                f"Where is the {toy}?",
                f"{capital(spot)}.",
            ),
            (
                f"{x} ate {a(food)}. {y} ate {a(meal)}.",
                f"What did {y} eat?",
                f"{capital(a(meal))}.",
            ),
            (
                f"{x} has {a(pet)}, and {y} has {a(animal)}.",
                f"What animal does {x} have?",
                f"{capital(a(pet))}.",
            ),
            (
                f"{y} went to the park with {x}. {x} found {a(toy)} and {y} found {a(other)}.",
                f"Who found the {toy}?",
                f"{x}.",
            ),
        )
    )
    return f"{told} {asked}", answer


def introduction(rng: Random) -> list[Exchange]:
    """Two turns: somebody says a name or a favorite thing and asks for it later."""
    name = rng.choice(GIRLS + BOYS) if rng.random() < 0.6 else rare_name(rng)
    if rng.random() < 0.6:
        first = rng.choice(("My name is {}.", "I am {}.", "Hi, I am {}.", "Hello! My name is {}."))
        asked = rng.choice(("What is my name?", "Do you know my name?", "Who am I?"))
        return [
            (first.format(name), f"Nice to meet you, {name}."),
            (asked, f"Your name is {name}."),
        ]
    what, word = rng.choice(
        (
            ("color", rng.choice(COLORS)),
            ("toy", rng.choice(TOYS)),
            ("food", rng.choice(FOODS)),
            ("animal", rng.choice(PETS)),
        )
    )
    return [
        (f"My favorite {what} is {word}.", "That is nice."),
        (f"What is my favorite {what}?", f"Your favorite {what} is {word}."),
    ]
