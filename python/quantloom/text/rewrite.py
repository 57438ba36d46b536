"""Rewrites the syntax tree of a template so that it reports to its environment what it does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer


class GenerationTag(Extension):
    """`{% generation %}` marks the assistant's words for training; the text is what is inside."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """The body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def rewrite(tree: nodes.Template) -> nodes.Template:
    """The tree with calls to the environment where a template does what may take long or grow.

    `environment._literal(value)`, `_slice(value, start, stop, step)` and `_concat(*values)` stand
    for what they compute, `_pass(value)` for its value and `_spread(values)` for the values that a
    call takes by `*`; `_report(characters)` runs once for each
    round of a loop and each call of a macro or block, with the plain text that is inside.
    """
    rewritten: nodes.Template = _Reporter().visit(tree)
    return rewritten


class _Reporter(NodeTransformer):
    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("_concat", node.nodes, node)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return node if _constant(node.items) else _call("_literal", [node], node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        if node.ctx != "load" or _constant(node.items):
            return node
        return _call("_literal", [node], node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return node if _constant([p.value for p in node.items]) else _call("_literal", [node], node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        part = node.arg
        if not isinstance(part, nodes.Slice):
            return node
        bounds = [bound or nodes.Const(None) for bound in (part.start, part.stop, part.step)]
        return _call("_slice", [node.node, *bounds], node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _call("_pass", [node.expr], node)
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        self.generic_visit(node)
        if node.dyn_args is not None:
            node.dyn_args = _call("_spread", [node.dyn_args], node)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
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

    visit_Macro = visit_CallBlock = visit_Block = _body


def _call(name: str, args: list[nodes.Expr], near: nodes.Node) -> nodes.Call:
    method = nodes.EnvironmentAttribute(name, lineno=near.lineno)
    return nodes.Call(method, args, [], None, None, lineno=near.lineno)


def _constant(items: Iterable[nodes.Node]) -> bool:
    return all(isinstance(item, nodes.Const) for item in items)
