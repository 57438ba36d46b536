"""How much a chat template may cost: time, text made, and the size of what it builds."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from quantloom.errors import TemplateError

SECONDS = 2.0
OUTPUT_CHARACTERS = 4 << 20
TEXT_CHARACTERS = 128 << 20
TREE_NODES = 1 << 20
INTEGER_BITS = 4096
WIDTH = 4096
NUMBER_CHARACTERS = 1000

_COUNTED = 8
_KEY = "tokenizer.chat_template"


class Budget:
    """The account of one rendering; every cap that is passed is a TemplateError.

    The caps grow with the size of the input, so that a long conversation stays within them.

    Args:
        input_size: characters and values handed to the template.
        seconds: wall-clock time the rendering may take.
        output: characters it may write, beyond four times the input.
    """

    def __init__(
        self, input_size: int = 0, *, seconds: float = SECONDS, output: int = OUTPUT_CHARACTERS
    ) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._text_left = self._text = TEXT_CHARACTERS + 64 * input_size
        self._output_left = self._output = output + 4 * input_size
        self._tree = TREE_NODES + 4 * input_size
        # Lists added to, with their counts: one that grows by an entry a round is counted once.
        self._counted: deque[tuple[Any, int]] = deque(maxlen=_COUNTED)

    def tick(self, characters: int = 0) -> None:
        """Charges text that is about to be made, and looks at the clock."""
        self._text_left -= characters
        if self._text_left < 0:
            raise _passed("makes more text and lists", self._text, "characters and entries")
        if time.monotonic() > self._deadline:
            raise TemplateError(
                f"the chat template takes longer than its cap of {self._seconds:g} seconds",
                subject=_KEY,
                limit=int(self._seconds),
            )

    def write(self, characters: int) -> None:
        """Charges text of the result."""
        self._output_left -= characters
        if self._output_left < 0:
            raise _passed("writes more", self._output, "characters")
        self.tick()

    def integer(self, value: int) -> None:
        """Refuses an integer so large that arithmetic on it takes long."""
        if value.bit_length() > INTEGER_BITS:
            raise _passed("computes with integers of more", INTEGER_BITS, "bits")

    def digits(self, text: str) -> None:
        """Refuses the text of a number so long that reading it takes time."""
        if len(text) > NUMBER_CHARACTERS:
            raise _passed("reads numbers of more", NUMBER_CHARACTERS, "characters")

    def width(self, value: object) -> None:
        """Refuses a width, count, precision or filling past the cap."""
        if isinstance(value, str):
            value = len(value)
        if isinstance(value, (int, float)) and abs(value) > WIDTH:
            raise _passed("pads or repeats by more", WIDTH, "places")

    def width_text(self, digits: str) -> int:
        """A width as a format writes it; refused past the cap, and 0 where there is none."""
        width = int(digits.lstrip("0")[:9] or "0")
        self.width(width)
        return width

    def pieces(self, text: str) -> None:
        """Refuses a text so long that its pieces, of which each takes tens of bytes, are many."""
        if len(text) > self._tree:
            raise _passed("takes apart texts of more", self._tree, "characters")

    def added(self, left: Any, right: Any, result: Any) -> None:
        """Caps the list that two lists make, as :meth:`tree` would, without counting it again."""
        count = self._count(left) + self._count(right)
        if count > self._tree:
            raise self._too_large()
        self._counted.append((result, count))

    def _count(self, value: Any) -> int:
        for known, count in self._counted:
            if known is value:
                return count
        count = self.tree(value, made=False)
        self._counted.append((value, count))
        return count

    def tree(self, value: Any, *, printing: bool = False, made: bool = True) -> int:
        """Counts the entries and characters of a value with everything in it, and caps them.

        A value that occurs twice counts twice, for so it does when it is printed or compared.

        Args:
            value: what to count.
            printing: the value is to be written out: refuse what has no text of its own.
            made: charge the count, as of text that was made.
        """
        count = 0
        stack = [value]
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                count += 1 + len(item)
            elif isinstance(item, dict):
                count += 1
                stack.extend(item.keys())
                stack.extend(item.values())
            elif isinstance(item, (list, tuple, set, frozenset)):
                count += 1
                stack.extend(item)
            else:
                count += 1
                if printing and type(item).__name__ in ("Namespace", "dict_values", "dict_items"):
                    raise TemplateError(
                        f"the chat template writes out a {type(item).__name__}", subject=_KEY
                    )
            if count + len(stack) > self._tree:
                raise self._too_large()
        self.tick(count if made else 0)
        return count

    def _too_large(self) -> TemplateError:
        return _passed("builds a value of more", self._tree, "entries and characters")


def _passed(what: str, limit: int, unit: str) -> TemplateError:
    return TemplateError(
        f"the chat template {what} than its cap of {limit} {unit}", subject=_KEY, limit=limit
    )
