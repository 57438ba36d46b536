"""Control tokens inside what messages say: hidden while a template is rendered, and never tokens.

A template writes control tokens between the messages; the same words inside a message are text. The
mark that tells them apart is a noncharacter of Unicode, which no text is meant to hold; where one
does, it is doubled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MARK = "\ufdd0"
_MARKS = re.compile(f"{_MARK}({_MARK}?)")
# Escapes of Python's repr and of JSON, whole, so that no second backslash begins one.
_ESCAPES = re.compile(r"\\(?:(ufdd0)|.)", re.DOTALL)
_MARK_IN_ADDRESS = "%EF%B7%90"


def can_be_hidden(name: str) -> bool:
    """Whether a mark can stand inside a name, and is not there already."""
    return len(name) > 1 and _MARK not in name


def hide(value: Any, names: re.Pattern[str]) -> Any:
    """A JSON value with a mark inside each name that its strings hold.

    Args:
        value: a string, or mappings and lists of strings; roles and keys that are identifiers stay
            as they are, for templates look for them.
        names: matches the names to hide, each of which `can_be_hidden`.
    """
    if isinstance(value, str):
        hidden = value.replace(_MARK, _MARK + _MARK)
        while names.search(hidden):  # again for a name that began inside another
            hidden = names.sub(lambda name: name[0][0] + _MARK + name[0][1:], hidden)
        return hidden
    if isinstance(value, Mapping):
        return {
            _name(key, names): _name(entry, names)
            if key == "role" and isinstance(entry, str)
            else hide(entry, names)
            for key, entry in value.items()
        }
    if isinstance(value, list):
        return [hide(entry, names) for entry in value]
    return value


def _name(text: str, names: re.Pattern[str]) -> Any:
    return text if text.isidentifier() else hide(text, names)


def show(text: str) -> str:
    """Text as it was before :func:`hide`."""
    return _MARKS.sub(r"\1", text)


def unescape_marks(text: str) -> str:
    """The text of a value by `repr` or in ASCII JSON, with the marks in it as themselves."""
    if "\\ufdd0" not in text:
        return text
    return _ESCAPES.sub(lambda escape: _MARK if escape[1] else escape[0], text)


def unquote_marks(text: str) -> str:
    """Text that is quoted for an address, with the marks in it as themselves."""
    return text.replace(_MARK_IN_ADDRESS, _MARK)


class Printed(str):
    """The text of a value whose `repr` has marks as themselves."""

    __slots__ = ("_repr",)
    _repr: str

    def __new__(cls, text: str, value: object) -> Printed:
        """`text` is what `str` gives and `value` what `repr` is taken of."""
        printed = super().__new__(cls, text)
        printed._repr = unescape_marks(repr(value))
        return printed

    def __repr__(self) -> str:
        return self._repr
