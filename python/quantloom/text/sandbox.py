"""A jinja2 environment for templates that nobody vouches for.

jinja2's ImmutableSandboxedEnvironment keeps a template away from Python. It does not keep it from
using up the machine, so here whatever may take long or grow is charged to a :class:`Budget`: the
syntax tree is rewritten so that loops, macros, literals, slices, comparisons and joined text
report to the environment, operators and calls are intercepted, and filters and methods come from
a list of those whose cost is known.
"""

from __future__ import annotations

import functools
import json
import re
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.filters import make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from quantloom.errors import TemplateError
from quantloom.text.budget import Budget

_FILTERS = frozenset(
    "abs attr batch capitalize center count d default dictsort e escape first float forceescape "
    "format groupby indent int items join last length list lower map max min reject rejectattr "
    "replace reverse round safe select selectattr slice sort string sum title tojson trim "
    "truncate unique upper urlencode wordcount".split()
)
_GLOBALS = frozenset("range dict namespace cycler joiner".split())
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        "capitalize casefold center count endswith expandtabs find index isalnum isalpha isascii "
        "isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper "
        "join ljust lower lstrip partition removeprefix removesuffix replace rfind rindex rjust "
        "rpartition rsplit rstrip split splitlines startswith strip swapcase title upper "
        "zfill".split()
    ),
    dict: frozenset("copy get items keys values".split()),
    list: frozenset("copy count index".split()),
    tuple: frozenset("count index".split()),
    range: frozenset("count index".split()),
}
# Searching from the right takes time by both lengths multiplied.
_BACKWARDS = frozenset("rfind rindex rpartition rsplit".split())
_WIDTHS = frozenset("center ljust rjust zfill expandtabs".split())
_FILTER_WIDTHS = frozenset("batch center indent round slice".split())
_BACKWARDS_LENGTH = 1000
_INT_DIGITS = 1000
_PERCENT = re.compile(r"%(?:\([^)]*\))?[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?[hlL]?.", re.DOTALL)


class GenerationTag(Extension):
    """`{% generation %}` marks the assistant's words for training; the text is what is inside."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """The body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


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
            for name, function in {**self.filters, **self._own_filters()}.items()
            if name in _FILTERS
        }
        self.tests = {name: self._guard_test(test) for name, test in self.tests.items()}
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
        tree: nodes.Template = _Reporter().visit(super()._parse(source, name, filename))
        return tree

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
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805, B902
        """Calls macros, globals and the methods whose cost is known."""
        budget = __self._budget
        budget.tick()
        owner = getattr(__obj, "__self__", None)
        if isinstance(__obj, types.BuiltinMethodType):
            args = __self._guard_method(owner, __obj.__name__, args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, str):
            budget.tick(len(result))
        elif isinstance(owner, str) or __obj is dict:
            budget.tree(result)
        return result

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` with every field charged."""
        if not isinstance(value, types.BuiltinMethodType) or not isinstance(value.__self__, str):
            return None
        if value.__name__ not in ("format", "format_map"):
            return None
        template: str = value.__self__
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
        return str(value)

    def _charge_repetition(self, value: Any, count: Any) -> None:
        if isinstance(value, (str, list, tuple)) and isinstance(count, int) and count > 0:
            self._budget.tick(len(value) * count)
            if not isinstance(value, str):
                self._budget.tick(self._budget.tree(value) * count)

    def _percent(self, template: str, values: Any) -> str:
        budget = self._budget
        places = fields = 0
        for width, precision in _PERCENT.findall(template):
            fields += 1
            for number in (width, precision):
                if number == "*":
                    raise TemplateError("the chat template takes a width from its values")
                budget.width(int(number[:9]) if number else 0)
                places += int(number) if number else 0
        longest = budget.tree(values, printing=True)
        budget.tick(places + fields * 6 * longest)
        return template % values

    def _guard_method(
        self, owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        allowed = next((names for kind, names in _METHODS.items() if isinstance(owner, kind)), None)
        if allowed is None or name not in allowed:
            raise TemplateError(
                f"the chat template calls {type(owner).__name__}.{name}, which is not allowed",
                subject="tokenizer.chat_template",
            )
        if not isinstance(owner, str):
            return args
        budget = self._budget
        given = (*args, *kwargs.values())
        if name in _WIDTHS:
            for value in given:
                budget.width(value)
            if name == "expandtabs":
                size = next((value for value in given if isinstance(value, int)), 8)
                budget.tick(owner.count("\t") * max(0, size))
        elif name in _BACKWARDS:
            if any(isinstance(value, str) and len(value) > _BACKWARDS_LENGTH for value in given):
                raise TemplateError("the chat template searches backwards for a text too long")
        elif name == "replace":
            self._charge_replacement(owner, given)
        elif name == "join" and len(args) == 1:
            return (self._parts(args[0], owner),)
        return args

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
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            budget = self._budget
            budget.tick()
            given = (*args, *kwargs.values())
            if name in _FILTER_WIDTHS:
                for value in given:
                    budget.width(value)
                if name == "indent" and isinstance(args[0], str):
                    width = args[1] if len(args) > 1 else kwargs.get("width", 4)
                    size = len(width) if isinstance(width, str) else width
                    budget.tick(len(args[0].splitlines()) * size)
            elif name in ("int", "float"):
                if isinstance(args[0], str) and len(args[0]) > _INT_DIGITS:
                    raise TemplateError("the chat template reads a number of too many digits")
            result = function(*args, **kwargs)
            if isinstance(result, (str, list, tuple, dict)):
                budget.tick(len(result))
            elif isinstance(result, int):
                budget.integer(result)
            return result

        return guarded

    def _guard_test(self, test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self._budget.tick()
            return test(*args, **kwargs)

        return guarded

    def _own_filters(self) -> dict[str, Callable[..., Any]]:
        """Filters of jinja2 whose cost cannot be told from outside, and `tojson` as Hugging Face
        renders it: no escapes for HTML, characters beyond ASCII as they are.
        """

        def items_of(value: Iterable[Any], attribute: Any) -> Iterable[Any]:
            return value if attribute is None else map(make_attrgetter(self, attribute), value)

        def do_join(value: Iterable[Any], d: str = "", attribute: Any = None) -> str:
            separator = self._text(d)
            return separator.join(self._parts(items_of(value, attribute), separator))

        def do_sum(iterable: Iterable[Any], attribute: Any = None, start: float = 0) -> Any:
            total = start
            for value in items_of(iterable, attribute):
                if not isinstance(value, (int, float)):
                    raise TypeError(f"sum takes numbers, not {type(value).__name__}")
                total += value
            return total

        def do_replace(s: Any, old: Any, new: Any, count: int | None = None) -> str:
            text, old, new = self._text(s), self._text(old), self._text(new)
            self._charge_replacement(text, (old, new))
            return text.replace(old, new, -1 if count is None else count)

        def do_format(value: Any, *args: Any, **kwargs: Any) -> str:
            if args and kwargs:
                raise TypeError("format takes positional or keyword values, not both")
            return self._percent(self._text(value), kwargs or args)

        def do_tojson(
            value: Any,
            ensure_ascii: bool = False,
            indent: int | str | None = None,
            separators: tuple[str, str] | None = None,
            sort_keys: bool = False,
        ) -> str:
            size = self._budget.tree(value)
            self._budget.width(indent)
            places = len(indent) if isinstance(indent, str) else indent or 0
            # The most that each level of nesting, of which json allows about a thousand, adds.
            self._budget.tick(size * 6 + places * _nesting(value))
            return json.dumps(
                value,
                ensure_ascii=ensure_ascii,
                indent=indent,
                separators=separators,
                sort_keys=sort_keys,
            )

        return {
            "join": do_join,
            "sum": do_sum,
            "replace": do_replace,
            "format": do_format,
            "string": self._text,
            "tojson": do_tojson,
        }


class _ChargedFormatter(SandboxedFormatter):
    def __init__(self, environment: CappedEnvironment) -> None:
        super().__init__(environment)
        self._environment = environment

    def convert_field(self, value: Any, conversion: Any) -> Any:
        self._environment._text(value)
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> Any:
        budget = self._environment._budget
        for number in re.findall(r"\d+", format_spec):
            budget.width(int(number[:9]))
        if not isinstance(value, (str, int, float)):
            value = self._environment._text(value)
        text: str = super().format_field(value, format_spec)
        budget.tick(len(text))
        return text


class _Reporter(NodeTransformer):
    """Rewrites a template so that it reports to the environment what it does."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802, D102
        self.generic_visit(node)
        return _call("_concat", node.nodes, node)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802, D102
        self.generic_visit(node)
        return node if _constant(node.items) else _call("_literal", [node], node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802, D102
        self.generic_visit(node)
        if node.ctx != "load" or _constant(node.items):
            return node
        return _call("_literal", [node], node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802, D102
        self.generic_visit(node)
        return node if _constant([p.value for p in node.items]) else _call("_literal", [node], node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802, D102
        self.generic_visit(node)
        part = node.arg
        if not isinstance(part, nodes.Slice):
            return node
        bounds = [bound or nodes.Const(None) for bound in (part.start, part.stop, part.step)]
        return _call("_slice", [node.node, *bounds], node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802, D102
        self.generic_visit(node)
        node.expr = _call("_pass", [node.expr], node)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802, D102
        if node.test is not None:
            step = _call("_report", [nodes.Const(0)], node)
            node.test = nodes.And(step, node.test, lineno=node.lineno)
        return self._body(node)

    def _body(self, node: Any) -> nodes.Node:
        data = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        step = _call("_report", [nodes.Const(data)], node)
        node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_CallBlock = visit_Block = _body  # noqa: N815


def _call(name: str, args: list[nodes.Expr], near: nodes.Node) -> nodes.Call:
    method = nodes.EnvironmentAttribute(name, lineno=near.lineno)
    return nodes.Call(method, args, [], None, None, lineno=near.lineno)


def _constant(items: Iterable[nodes.Node]) -> bool:
    return all(isinstance(item, nodes.Const) for item in items)


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


def _raise_exception(message: Any = "") -> None:
    raise TemplateError(
        f"the chat template refuses the messages: {message}", subject="tokenizer.chat_template"
    )


def _strftime_now(form: str) -> str:
    from datetime import datetime

    if len(form) > 256 or re.search(r"%[-_0^#]*\d", form):
        raise TemplateError("the chat template asks for a date of unusual form")
    return datetime.now().strftime(form)
