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
