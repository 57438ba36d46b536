"""Text out of a stream of tokens: whole characters only, and stop strings found across tokens."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

import quantloom
from quantloom import arguments
from quantloom.errors import InvalidArgument


class StreamDecoder:
    """Takes token ids one by one and gives the text that is complete.

    The pieces joined, with that of :meth:`flush`, are what `Tokenizer.decode` gives for all ids.
    A character whose bytes come in several tokens is given with its last one.

    Args:
        tokenizer: whose ids these are.
        skip_special: leave out control and unknown tokens.
        previous: the last token of the prompt, when the ids continue one.
    """

    def __init__(
        self,
        tokenizer: quantloom.Tokenizer,
        *,
        skip_special: bool = True,
        previous: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._skip_special = arguments.flag("skip_special", skip_special)
        self._previous = previous
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, index: int) -> str:
        """The text that this token completes; often a word, sometimes nothing.

        Raises:
            InvalidArgument: the id is outside the vocabulary.
        """
        data = self._tokenizer._joined((index,), self._skip_special, self._previous)
        self._previous = index
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole, or nothing."""
        return self._decoder.decode(b"", final=True)


class StopMatcher:
    """Finds stop strings in text that comes in pieces.

    Text that may be the beginning of a stop string is held back until it is decided. The stop
    string that ends first wins, of several the longest; how the text is cut makes no difference.

    Args:
        stops: one stop string or several.

    Attributes:
        stopped: the stop string that was found, or None.
    """

    def __init__(self, stops: str | Iterable[str]) -> None:
        self._stops = [stops] if isinstance(stops, str) else list(stops)
        for stop in self._stops:
            if not isinstance(stop, str) or not stop:
                raise InvalidArgument(
                    f"a stop string must be a string with one character at least, not {stop!r}",
                    subject="stop",
                )
        self._held = ""
        self.stopped: str | None = None

    def push(self, text: str) -> str:
        """The text that can be shown; it ends before a stop string, and nothing follows one."""
        if self.stopped is not None:
            return ""
        text = self._held + text
        found = [(text.find(stop) + len(stop), -len(stop)) for stop in self._stops if stop in text]
        if found:
            end, negative_length = min(found)
            self.stopped = text[end + negative_length : end]
            self._held = ""
            return text[: end + negative_length]
        keep = _overlap(text, self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The text held back, once no more can come."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` with which a stop string begins."""
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest
