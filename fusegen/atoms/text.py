"""Expressions as text, in the language that formulas are written in."""

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy.printing.str import StrPrinter

from fusegen.atoms.declare import ATOMS

__all__ = ["written"]


def written(expr: sp.Basic) -> str:
    """Return an expression as a formula would write it: `where(x <= 0, 0, x)`, `abs(x)`, `a == b`."""
    return str(_Formulas().doprint(expr))


class _Formulas(StrPrinter):
    """Prints as sympy does, but for what formulas have another word for."""

    def _print_Piecewise(self, expr: Any) -> str:  # noqa: N802
        *cases, (last, _) = expr.args
        text = str(self._print(last))
        for value, condition in reversed(cases):
            text = f"where({self._print(condition)}, {self._print(value)}, {text})"
        return text

    def _print_Relational(self, expr: Any) -> str:  # noqa: N802
        return f"{self._print(expr.lhs)} {expr.rel_op} {self._print(expr.rhs)}"

    def _print_Function(self, expr: Any) -> str:  # noqa: N802
        atom = ATOMS.get(expr.func)
        name = (atom and atom.word) or expr.func.__name__
        return f"{name}({self.stringify(expr.args, ', ')})"

    def _print_Float(self, expr: Any) -> str:  # noqa: N802
        return repr(float(expr))
