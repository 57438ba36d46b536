"""A jinja2 environment for templates that nobody vouches for.

jinja2's ImmutableSandboxedEnvironment keeps a template away from Python. It does not keep it from
using up the machine, so here whatever may take long or grow is charged to a :class:`Budget`: the
syntax tree is rewritten so that loops, macros, literals, slices, comparisons and joined text
report to the environment, operators and calls are intercepted, and filters and methods come from
a list of those whose cost is known.
"""

from __future__ import annotations

import functools
import re
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jinja2 import nodes
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace

from quantloom.errors import TemplateError
from quantloom.text.budget import Budget
from quantloom.text.filters import own_filters
from quantloom.text.guard import Printed, unescape_marks
from quantloom.text.rewrite import GenerationTag, rewrite


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FILTERS = _names(
    "abs attr batch capitalize center count d default dictsort e escape first float forceescape "
    "format groupby indent int items join last length list lower map max min reject rejectattr "
    "replace reverse round safe select selectattr slice sort string sum title tojson trim "
    "truncate unique upper urlencode wordcount"
)
_GLOBALS = _names("range dict namespace cycler joiner")
_METHODS: dict[type, frozenset[str]] = {
    str: _names(
        "capitalize casefold center count endswith expandtabs find index isalnum isalpha isascii "
        "isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper "
        "join ljust lower lstrip partition removeprefix removesuffix replace rfind rindex rjust "
        "rpartition rsplit rstrip split splitlines startswith strip swapcase title upper "
        "zfill"
    ),
    dict: _names("copy get items keys values"),
    list: _names("copy count index"),
    tuple: _names("count index"),
    range: _names("count index"),
}
# Searching from the right and stripping take time by both lengths multiplied.
_SEARCHES = _names("rfind rindex rpartition rsplit strip lstrip rstrip")
_WIDTHS = _names("center ljust rjust zfill expandtabs")
_FILTER_WIDTHS = _names("batch center indent round slice")
_SOUGHT_LENGTH = 1000
# What makes many values of one text on its way.
_DIVIDING = _names("split rsplit splitlines")
_DIVIDING_FILTERS = _names("batch indent list slice title urlencode wordcount")
_COMPARING = _names("dictsort groupby max min sort unique")
_TEXT_FILTERS = _names("capitalize center lower title trim upper wordcount")
_PERCENT = re.compile(
    r"%(?:\([^()%]{0,200}\))?[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?[hlL]?(.)", re.DOTALL
)


class CappedEnvironment(ImmutableSandboxedEnvironment):
    """The environment that chat templates are compiled and rendered in.

    Compile and render inside `with environment.spending(budget):`.
    """

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", GenerationTag],
            finalize=self._finalize,
        )
        self._local = threading.local()
        self.filters = {
            name: self._guard_filter(name, function)
            for name, function in {**self.filters, **own_filters(self)}.items()
            if name in _FILTERS
        }
        self.tests = {
            name: self._guard_test(test) for name, test in dict[str, Any](self.tests).items()
        }
        self.globals = {name: self.globals[name] for name in self.globals if name in _GLOBALS}
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    @contextmanager
    def spending(self, budget: Budget) -> Iterator[Budget]:
        """Charges all that this thread does with the environment to a budget."""
        before = getattr(self._local, "budget", None)
        self._local.budget = budget
        try:
            yield budget
        finally:
            self._local.budget = before

    @property
    def _budget(self) -> Budget:
        budget: Budget = self._local.budget
        return budget

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return rewrite(super()._parse(source, name, filename))

    # Reached from the rewritten syntax tree.

    def _report(self, characters: int) -> bool:
        self._budget.tick(characters)
        return True

    def _pass(self, value: Any) -> Any:
        self._budget.tick()
        return value

    def _literal(self, value: Any) -> Any:
        self._budget.tree(value)
        return value

    def _spread(self, values: Iterable[Any]) -> list[Any]:
        return list(self._literal(self._as_list(values)))

    def _slice(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        if isinstance(value, Undefined):
            return self.getitem(value, slice(start, stop, step))
        part = value[start:stop:step]
        self._budget.tick(len(part))
        return part

    def _concat(self, *values: Any) -> str:
        parts = [self._text(value) for value in values]
        self._budget.tick(sum(map(len, parts)))
        return "".join(parts)

    def _finalize(self, value: Any) -> str:
        text = self._text(value)
        self._budget.tick(len(text))
        return text

    # What jinja2 lets a sandbox intercept.

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Subscription, at the cost of a step."""
        self._budget.tick()
        return super().getitem(obj, argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An attribute, at the cost of a step."""
        self._budget.tick()
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Charges what the result will take, then computes it."""
        budget = self._budget
        budget.tick()
        if operator == "%" and isinstance(left, str):
            return self._percent(left, right)
        if operator == "+" and isinstance(left, (str, list, tuple)):
            budget.tick(len(left) + (len(right) if isinstance(right, (str, list, tuple)) else 0))
        elif operator == "*":
            self._charge_repetition(left, right)
            self._charge_repetition(right, left)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int) and right > 0:
            budget.width(right)
            budget.integer(1 << (left.bit_length() * right if abs(left) > 1 else 1))
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int):
            budget.integer(result)
        elif operator == "+" and isinstance(result, (list, tuple)):
            budget.added(left, right, result)
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls macros, globals and the methods whose cost is known."""
        budget = __self._budget
        budget.tick()
        owner = getattr(__obj, "__self__", None)
        if isinstance(__obj, types.BuiltinMethodType) or (
            isinstance(__obj, types.MethodType) and isinstance(owner, tuple(_METHODS))
        ):
            args = __self._guard_method(owner, __obj.__name__, args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, str):
            budget.tick(len(result))
        elif isinstance(owner, str) or __obj is dict:
            budget.tree(result)
        return result

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuses an attribute that leads into Python or changes a value, instead of hiding it."""
        raise _refusal(f"reaches for {attribute!r} of a {type(obj).__name__}, which is not allowed")

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` with every field charged."""
        if not isinstance(value, (types.BuiltinMethodType, types.MethodType)):
            return None
        if value.__name__ not in ("format", "format_map") or not isinstance(value.__self__, str):
            return None
        template = str(value.__self__)
        self._budget.pieces(template)
        formatter = _ChargedFormatter(self)
        if value.__name__ == "format":
            return lambda *args, **kwargs: formatter.vformat(template, args, kwargs)
        return lambda mapping: formatter.vformat(template, (), mapping)

    # Guards.

    def _text(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, Namespace) or not isinstance(value, (int, float, Undefined)):
            self._budget.tree(value, printing=True)
            return unescape_marks(str(value))
        return str(value)

    def _charge_repetition(self, value: Any, count: Any) -> None:
        if isinstance(value, (str, list, tuple)) and isinstance(count, int) and count > 0:
            self._budget.tick(len(value) * count)
            if not isinstance(value, str):
                self._budget.tick(self._budget.tree(value) * count)

    def _percent(self, template: str, values: Any) -> str:
        budget = self._budget
        budget.pieces(template)
        places = fields = 0
        for width, precision, conversion in _PERCENT.findall(template):
            fields += 1
            if conversion == "(":
                raise _refusal("formats a value of an unusual name")
            for number in (width, precision):
                if number == "*":
                    raise _refusal("takes a width from its values")
                places += budget.width_text(number)
        longest = budget.tree(values, printing=True)
        budget.tick(places + fields * 6 * longest)
        if isinstance(values, dict):
            values = {key: self._printed(value) for key, value in values.items()}
        elif isinstance(values, tuple):
            values = tuple(map(self._printed, values))
        else:
            values = self._printed(values)
        text: str = template % values
        return text

    def _printed(self, value: Any) -> Any:
        return value if isinstance(value, (int, float)) else Printed(self._text(value), value)

    def _guard_method(
        self, owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        allowed = next((names for kind, names in _METHODS.items() if isinstance(owner, kind)), None)
        if allowed is None or name not in allowed:
            raise _refusal(f"calls {type(owner).__name__}.{name}, which is not allowed")
        if not isinstance(owner, str):
            return args
        budget = self._budget
        given = (*args, *kwargs.values())
        if name in _DIVIDING:
            budget.pieces(owner)
        if name in _WIDTHS:
            for value in given:
                budget.width(value)
            if name == "expandtabs":
                size = next((value for value in given if isinstance(value, int)), 8)
                budget.tick(owner.count("\t") * max(0, size))
        elif name in _SEARCHES:
            self._charge_search(owner, given)
        elif name == "replace":
            self._charge_replacement(owner, given)
        elif name == "join" and len(args) == 1:
            return (self._parts(args[0], owner),)
        return args

    def _charge_search(self, text: str, given: Sequence[Any]) -> None:
        for sought in given:
            if isinstance(sought, str):
                if len(sought) > _SOUGHT_LENGTH:
                    raise _refusal(f"strips or searches for more than {_SOUGHT_LENGTH} characters")
                self._budget.tick(len(text) * len(sought))

    def _charge_replacement(self, text: str, given: Sequence[Any]) -> None:
        if len(given) >= 2 and isinstance(given[0], str) and isinstance(given[1], str):
            growth = max(0, len(given[1]) - len(given[0]))
            self._budget.tick(len(text) + text.count(given[0]) * growth)

    def _parts(self, values: Iterable[Any], separator: str) -> list[str]:
        parts: list[str] = []
        for value in values:
            parts.append(self._text(value))
            self._budget.tick(len(parts[-1]) + len(separator))
        return parts

    def _guard_filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        # Behind the environment or context, where jinja2 puts one first.
        place = int(hasattr(function, "jinja_pass_arg"))

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            budget = self._budget
            budget.tick()
            value = args[place]
            given = (*args[place + 1 :], *kwargs.values())
            if name in _COMPARING:
                value = self._as_list(value)
                budget.tree(value, made=False)
            elif name in _TEXT_FILTERS:
                value = self._text(value)
            if name in _DIVIDING_FILTERS and isinstance(value, str):
                budget.pieces(value)
            if name in _FILTER_WIDTHS:
                for width in given:
                    budget.width(width)
            if name == "indent" and isinstance(value, str):
                width = args[place + 1] if len(args) > place + 1 else kwargs.get("width", 4)
                size = len(width) if isinstance(width, str) else width
                budget.tick(len(value.splitlines()) * size)
            elif name in ("int", "float") and isinstance(value, str):
                budget.digits(value)
            elif name == "trim":
                self._charge_search(value, given)
            result = function(*args[:place], value, *args[place + 1 :], **kwargs)
            if name in ("batch", "slice"):
                return map(self._literal, result)
            if isinstance(result, str):
                budget.tick(len(result))
            elif isinstance(result, (list, tuple, dict)):
                budget.tree(result, made=False)
                budget.tick(len(result))
            elif isinstance(result, int):
                budget.integer(result)
            return result

        return guarded

    @staticmethod
    def _as_list(value: Any) -> Any:
        """The entries of a generator or view, which can then be counted before they are used."""
        known = isinstance(value, (str, list, tuple, dict, Undefined))
        return value if known else list(value)

    def _guard_test(self, test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self._budget.tick()
            return test(*args, **kwargs)

        return guarded


class _ChargedFormatter(SandboxedFormatter):
    def __init__(self, environment: CappedEnvironment) -> None:
        super().__init__(environment)
        self._environment = environment

    def convert_field(self, value: Any, conversion: Any) -> Any:
        self._environment._text(value)
        converted = super().convert_field(value, conversion)
        as_it_is = conversion is None or (conversion == "s" and isinstance(value, str))
        return converted if as_it_is else unescape_marks(converted)

    def format_field(self, value: Any, format_spec: str) -> Any:
        budget = self._environment._budget
        budget.digits(format_spec)
        for number in re.findall(r"\d+", format_spec):
            budget.width_text(number)
        if not isinstance(value, (str, int, float)):
            value = self._environment._text(value)
        text: str = super().format_field(value, format_spec)
        budget.tick(len(text))
        return text


def _refusal(what: str) -> TemplateError:
    return TemplateError(f"the chat template {what}", subject="tokenizer.chat_template")


def _raise_exception(message: Any = "") -> None:
    raise _refusal(f"refuses the messages: {message}")


def _strftime_now(form: str) -> str:
    from datetime import datetime

    if len(form) > 256 or re.search(r"%[-_0^#]*\d", form):
        raise _refusal(f"asks for a date as {form[:40]!r}")
    return datetime.now().strftime(form)
