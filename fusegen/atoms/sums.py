"""A sum that sympy leaves together, as the formula has it."""

from __future__ import annotations

from typing import Any

import sympy as sp

from fusegen.atoms.declare import Atom, Pointwise, Shape

__all__ = ["together"]


@Atom(
    derivative=lambda x: sp.Integer(1),
    value=lambda x: x,
    torch=lambda torch, x: x,
    cpp="T({0})",
    shape=Shape.GROWING,
    calls=0,
    fitted=False,
    exact=True,
)
class together(Pointwise):
    """A sum, as a factor of a number or as a term in parentheses.

    sympy makes 10000 m - 10000 of 10000 (m - 1), and adds x and the others in an order of its own. That loses
    what x has below the last digit of 10000, also where m is 1.
    """

    nargs = 1

    @classmethod
    def eval(cls, x: sp.Expr) -> sp.Expr | None:
        return x if x.is_Number else None

    def _sympystr(self, printer: Any) -> str:
        return f"({printer._print(self.args[0])})"

    def _latex(self, printer: Any, **_: Any) -> str:
        return rf"\left({printer._print(self.args[0])}\right)"
