"""Expressions as presentation MathML, by sympy's printer; browsers typeset it without any script."""

from __future__ import annotations

import html
import re
from typing import Any

import sympy as sp
from sympy.printing.mathml import MathMLPresentationPrinter

from fusegen.tools.typeset.functions import GREEK, SYMBOLS, infinite, word
from fusegen.tools.typeset.names import Bar, Name, Names, Plain, Prime, Sub

__all__ = ["MathML"]

#: Entities of XML itself. Browsers know sympy's others too, but no other parser does.
_OWN = {"amp", "gt", "lt", "quot", "apos"}

#: Elements that are higher than a line.
_HIGH = ("mfrac", "mtable", "munder", "msqrt", "mroot")


class MathML(MathMLPresentationPrinter):  # type: ignore[misc]
    """Prints with the notation of `Names`.

    Args:
        names: reads the names of symbols.
    """

    def __init__(self, names: Names) -> None:
        super().__init__({"mul_symbol": "dot"})
        self._names = names

    def text(self, expr: sp.Basic) -> str:
        """Return an expression as MathML without the `math` around it."""
        made = self._print(expr)
        _keep_low(made)
        return _plain(made.toxml())

    def name(self, name: str) -> str:
        """Return the name of a value."""
        return _plain(self._name(self._names.read(name)).toxml())

    def _make(self, tag: str, *inside: Any, **attributes: str) -> Any:
        """Return an element with elements or a text inside."""
        made = self.dom.createElement(tag)
        for key, value in attributes.items():
            made.setAttribute(key, value)
        for part in inside:
            # The printer's text nodes are written as they are.
            text = self.dom.createTextNode(html.escape(part)) if isinstance(part, str) else part
            made.appendChild(text)
        return made

    def _name(self, name: Name) -> Any:
        if isinstance(name, Plain):
            return self._make("mi", GREEK.get(name.text, name.text))
        if isinstance(name, Prime):
            return self._derivative(name)
        if isinstance(name, Bar) and isinstance(name.of, Sub):
            # Over the word alone: few fonts have bars for long names.
            return self._name(Sub(Bar(name.of.of), name.of.below))
        inner = self._name(name.of)
        if isinstance(name, Bar):
            return self._make("mover", inner, self._make("mo", "‾", stretchy="true"))
        return self._make("msub", inner, self._make("mtext", name.below))

    def _derivative(self, name: Prime) -> Any:
        """Return a derivative; that of a derivative by the only argument has two primes."""
        inner, order = name.of, 1
        while name.by is None and isinstance(inner, Prime) and inner.by is None:
            inner, order = inner.of, order + 1
        # No superscript: the character is raised, and without a mathematical font would be tiny.
        primes = self._make("mi", "′" * order, mathvariant="normal", **{"class": "prime"})
        of = self._name(inner)
        if name.by is not None:
            of = self._make("msub", of, self._name(name.by))
        return self._make("mrow", of, primes)

    def _call(self, head: Any, args: Any) -> Any:
        return self._make("mrow", head, self._paren_comma_separated(*args))

    def _print_Symbol(self, expr: Any, style: str = "plain") -> Any:  # noqa: N802
        del style
        return self._name(self._names.read(str(expr)))

    def _print_Function(self, expr: Any) -> Any:  # noqa: N802
        name = word(expr.func)
        if name == "sech2":
            head = self._make("msup", self._make("mi", "sech"), self._make("mn", "2"))
            return self._call(head, expr.args)
        return self._call(self._make("mi", SYMBOLS.get(name, (name,))[0]), expr.args)

    _print_exp = _print_Function

    def _print_absolute(self, expr: Any) -> Any:
        return self._make("mrow", self._bar(), self._print(expr.args[0]), self._bar())

    _print_Abs = _print_absolute  # noqa: N815

    def _print_power(self, expr: Any) -> Any:
        base, exponent = expr.args
        inside = self._print(base)
        if not base.is_Symbol:
            inside = self._make("mrow", self._l_paren(), inside, self._r_paren())
        return self._make("msup", inside, self._print(exponent))

    def _print_Special(self, expr: Any) -> Any:  # noqa: N802
        return self._make("mn", infinite(expr)[0])

    def _print_Float(self, expr: Any) -> Any:  # noqa: N802
        return self._make("mn", repr(float(expr)))

    def _print_Relational(self, expr: Any) -> Any:  # noqa: N802
        sign = {"<=": "≤", ">=": "≥", "==": "=", "!=": "≠"}.get(expr.rel_op, expr.rel_op)
        return self._make(
            "mrow", self._print(expr.lhs), self._make("mo", sign), self._print(expr.rhs)
        )

    def _print_Piecewise(self, expr: Any) -> Any:  # noqa: N802
        rows = []
        for value, condition in expr.args:
            said = "otherwise" if condition == sp.true else "if "
            cell = self._make("mtd", self._make("mtext", said))
            if condition != sp.true:
                cell.appendChild(self._print(condition))
            rows.append(self._make("mtr", self._make("mtd", self._print(value)), cell))
        table = self._make("mtable", *rows, columnalign="left left")
        return self._make("mrow", self._make("mo", "{"), table)


def _keep_low(element: Any) -> None:
    """Keep parentheses from growing around what is one line high: without a mathematical font they would."""
    if element.nodeType != element.ELEMENT_NODE:
        return
    for child in element.childNodes:
        _keep_low(child)
    if any(element.getElementsByTagName(tag) for tag in _HIGH):
        return
    for child in element.childNodes:
        if child.nodeName == "mo" and child.firstChild.data in "()|":
            child.setAttribute("stretchy", "false")


def _plain(text: str) -> str:
    """Return MathML with characters for the entities that only browsers know."""
    return re.sub(
        r"&([A-Za-z]+);",
        lambda found: found[0] if found[1] in _OWN else html.unescape(found[0]),
        text.replace("<mo>-</mo>", "<mo>−</mo>"),
    )
