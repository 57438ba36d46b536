"""libFuzzer target (by atheris): whatever a file's vocabulary says, the tokenizer works or refuses.

    python tests/fuzz/fuzz_vocabulary.py [libFuzzer's options] CORPUS...

A tokenizer that was built gives ids of its vocabulary for any text, and bytes for any ids; what it
refuses is one QuantloomError with a message and a subject.
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any

import atheris

with atheris.instrument_imports(include=["quantloom"]):
    import quantloom
    from quantloom.text.chat import ChatTemplate
    from quantloom.text.tokenizer import Tokenizer

TEXTS = ["", "ab abc aba", "a\0b", "  \u2581x\n\t", "\U0001f600\u00e9 12345", "<|im_start|><s>"]
HEADER = 24
ODD = [0, 1, 2, 9, 0x20, 0x7F, 0x80, 0xFF]

file = os.memfd_create("vocabulary.gguf")
path = f"/proc/self/fd/{file}"
counts = {"inputs": 0, "past the header": 0, "tokenizers": 0}


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Mostly changes bytes in place: what moves the rest rarely gets past the header."""
    draw = random.Random(seed)
    if len(data) <= HEADER or draw.randrange(8) == 0:
        return atheris.Mutate(data, most)  # type: ignore[no-any-return]
    changed = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(HEADER, len(changed))
        changed[place] = draw.choice([*ODD, changed[place] ^ (1 << draw.randrange(8))])
    return bytes(changed)


def use(tokenizer: Tokenizer, which: int) -> None:
    if tokenizer.model == "no_vocab":
        return
    text = TEXTS[which % len(TEXTS)]
    ids = tokenizer.encode(text, add_special=which % 2 == 0)
    assert all(0 <= token < tokenizer.vocab_size for token in ids), ids
    assert isinstance(tokenizer.decode(ids), str)
    decoder = tokenizer.stream_decoder()
    every = range(0, tokenizer.vocab_size, 1 + tokenizer.vocab_size // 50)
    pieces = [decoder.push(token) for token in every]
    assert isinstance("".join(pieces) + decoder.flush(), str)
    if which % 4 == 0 and tokenizer.chat_template is not None:
        template = ChatTemplate(tokenizer.chat_template, seconds=0.05)
        template.render([{"role": "user", "content": text}])


def one_input(data: bytes) -> None:
    os.ftruncate(file, len(data))
    os.pwrite(file, data, 0)
    counts["inputs"] += 1
    if counts["inputs"] % 1000 == 0:
        print(counts, file=sys.stderr)
    try:
        with quantloom.open(path) as opened:
            counts["past the header"] += 1
            metadata: dict[str, Any] = dict(opened.metadata)
        tokenizer = Tokenizer.from_metadata(metadata)
        counts["tokenizers"] += 1
        use(tokenizer, len(data) + (data[len(data) // 2] if data else 0))
    except quantloom.QuantloomError as error:
        assert str(error) and error.subject, repr(error)


def main() -> None:
    """Runs libFuzzer; it ends the process."""
    atheris.Setup(sys.argv, one_input, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
