"""Filters of jinja2 whose cost cannot be told from outside, with that cost charged."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from jinja2.filters import make_attrgetter
from jinja2.utils import url_quote

from quantloom.text.guard import unescape_marks, unquote_marks

if TYPE_CHECKING:
    from quantloom.text.sandbox import CappedEnvironment


def own_filters(environment: CappedEnvironment) -> dict[str, Callable[..., Any]]:
    """Filters of jinja2 whose cost cannot be told from outside, and `tojson` as Hugging Face
    renders it: no escapes for HTML, characters beyond ASCII as they are.
    """

    def items_of(value: Iterable[Any], attribute: Any) -> Iterable[Any]:
        return value if attribute is None else map(make_attrgetter(environment, attribute), value)

    def do_join(value: Iterable[Any], d: str = "", attribute: Any = None) -> str:
        separator = environment._text(d)
        return separator.join(environment._parts(items_of(value, attribute), separator))

    def do_sum(iterable: Iterable[Any], attribute: Any = None, start: float = 0) -> Any:
        total = start
        for value in items_of(iterable, attribute):
            if not isinstance(value, (int, float)):
                raise TypeError(f"sum takes numbers, not {type(value).__name__}")
            total += value
        return total

    def do_replace(s: Any, old: Any, new: Any, count: int | None = None) -> str:
        text, old, new = environment._text(s), environment._text(old), environment._text(new)
        environment._charge_replacement(text, (old, new))
        return text.replace(old, new, -1 if count is None else count)

    def do_format(value: Any, *args: Any, **kwargs: Any) -> str:
        if args and kwargs:
            raise TypeError("format takes positional or keyword values, not both")
        return environment._percent(environment._text(value), kwargs or args)

    def do_escape(value: Any) -> str:
        text = environment._text(value)
        environment._budget.tick(5 * sum(map(text.count, "&<>\"'")))
        return html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")

    def quoted(value: Any, in_query: bool = False) -> str:
        text = environment._text(value)
        environment._budget.tick(9 * len(text))
        return unquote_marks(url_quote(text, for_qs=in_query))

    def do_urlencode(value: Any) -> str:
        if isinstance(value, str) or not isinstance(value, Iterable):
            return quoted(value)
        pairs = value.items() if isinstance(value, Mapping) else value
        return "&".join(f"{quoted(key, True)}={quoted(entry, True)}" for key, entry in pairs)

    def do_tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        size = environment._budget.tree(value)
        environment._budget.width(indent)
        places = len(indent) if isinstance(indent, str) else indent or 0
        # The most that each level of nesting, of which json allows about a thousand, adds.
        environment._budget.tick(size * 6 + places * _nesting(value))
        text = json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )
        return unescape_marks(text) if ensure_ascii else text

    return {
        "join": do_join,
        "sum": do_sum,
        "replace": do_replace,
        "format": do_format,
        "string": environment._text,
        "safe": environment._text,
        "e": do_escape,
        "escape": do_escape,
        "forceescape": do_escape,
        "urlencode": do_urlencode,
        "tojson": do_tojson,
    }


def _nesting(value: Any) -> int:
    """Sum over all entries of a value of the depth they lie at."""
    total = 0
    stack = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        total += depth
        if isinstance(item, dict):
            stack.extend((entry, depth + 1) for entry in item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend((entry, depth + 1) for entry in item)
    return total
