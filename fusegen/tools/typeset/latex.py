"""Expressions as LaTeX, by sympy's printer."""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy.printing.latex import LatexPrinter

from fusegen.tools.typeset.functions import GREEK, SYMBOLS, infinite, word
from fusegen.tools.typeset.names import Bar, Name, Names, Plain, Prime, Sub

__all__ = ["Latex"]

#: Functions that LaTeX has a command for.
_COMMANDS = {"cos", "cosh", "exp", "log", "max", "min", "sin", "sinh", "tan", "tanh"}


class Latex(LatexPrinter):  # type: ignore[misc]
    """Prints with the notation of `Names`.

    Args:
        names: reads the names of symbols.
    """

    def __init__(self, names: Names) -> None:
        super().__init__({"mul_symbol": "dot"})
        self._names = names

    def text(self, expr: sp.Basic) -> str:
        """Return an expression as LaTeX for math mode."""
        return str(self._print(expr))

    def name(self, name: str) -> str:
        """Return the name of a value."""
        return _name(self._names.read(name))

    def _print_Symbol(self, expr: Any, style: str = "plain") -> str:  # noqa: N802
        del style
        return self.name(str(expr))

    def _print_Function(self, expr: Any, exp: Any = None) -> str:  # noqa: N802
        name = word(expr.func)
        head = rf"\{name}" if name in _COMMANDS else rf"\operatorname{{{_text(name)}}}"
        head = SYMBOLS[name][1] if name in SYMBOLS else head
        head = r"\operatorname{sech}^{2}" if name == "sech2" else head
        call = rf"{head}\left({', '.join(map(self._print, expr.args))}\right)"
        return call if exp is None else rf"\left({call}\right)^{{{exp}}}"

    def _print_ExpBase(self, expr: Any, exp: Any = None) -> str:  # noqa: N802
        return self._print_Function(expr, exp)

    _print_exp = _print_ExpBase
    _print_log = _print_Function

    def _print_absolute(self, expr: Any, exp: Any = None) -> str:
        inside = rf"\left|{self._print(expr.args[0])}\right|"
        return inside if exp is None else f"{inside}^{{{exp}}}"

    def _print_power(self, expr: Any, exp: Any = None) -> str:
        base, exponent = (self._print(arg) for arg in expr.args)
        inside = rf"{{\left({base}\right)}}^{{{exponent}}}"
        return inside if exp is None else rf"\left({inside}\right)^{{{exp}}}"

    def _print_Special(self, expr: Any) -> str:  # noqa: N802
        return infinite(expr)[1]

    def _print_Float(self, expr: Any) -> str:  # noqa: N802
        digits, _, exponent = repr(float(expr)).partition("e")
        return rf"{digits} \cdot 10^{{{int(exponent)}}}" if exponent else digits


def _name(name: Name) -> str:
    if isinstance(name, Plain):
        if name.text in GREEK:
            return rf"\{'epsilon' if name.text == 'eps' else name.text}"
        return name.text if len(name.text) == 1 else rf"\mathrm{{{_text(name.text)}}}"
    if isinstance(name, Prime) and name.by is None and isinstance(name.of, Prime):
        return f"{_name(name.of)}'" if name.of.by is None else f"{{{_name(name.of)}}}'"
    inner = _name(name.of)
    if isinstance(name, Bar):
        return rf"\overline{{{inner}}}"
    if isinstance(name, Sub):
        return rf"{{{inner}}}_{{\text{{{_text(name.below)}}}}}"
    assert isinstance(name, Prime)
    return rf"{{{inner}}}'" if name.by is None else rf"{{{inner}}}'_{{{_name(name.by)}}}"


def _text(text: str) -> str:
    """Return a name as LaTeX text; names are identifiers, of which only the underscore is special."""
    return text.replace("_", r"\_")
