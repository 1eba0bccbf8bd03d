"""Parts of a formula with a name of their own."""

from __future__ import annotations

from typing import Any

import sympy as sp

__all__ = ["Let", "Quoted", "let"]


class Quoted(sp.AtomicExpr):
    """An expression that sympy does not look into: it would fold a Piecewise inside into the
    conditions around it."""

    __slots__ = ("expr",)
    is_real = True

    def __new__(cls, expr: sp.Expr) -> Quoted:
        made = super().__new__(cls)
        made.expr = expr
        return made  # type: ignore[no-any-return]

    @property
    def inside(self) -> tuple[sp.Expr]:
        return (self.expr,)

    @property
    def free_symbols(self) -> set[sp.Symbol]:
        return self.expr.free_symbols  # type: ignore[no-any-return]

    def _hashable_content(self) -> tuple[sp.Expr]:
        return (self.expr,)

    def _xreplace(self, rule: Any) -> tuple[sp.Basic, bool]:
        expr, changed = self.expr._xreplace(rule)
        return (Quoted(expr), True) if changed else (self, False)

    def _sympystr(self, printer: Any) -> str:
        return str(printer._print(self.expr))


class Let(sp.Function):
    """A part of a formula with a name of its own: it becomes a node, so that its terms keep their
    association and everything that uses it shares it."""

    nargs = 2
    is_real = True

    @property
    def value(self) -> sp.Expr:
        return self.args[1].expr


def let(name: str, value: Any) -> sp.Expr:
    """Give a part of a formula a name: `let("centred", x - row_mean(x))`. A number gets none."""
    value = sp.sympify(value)
    return value if value.is_Number else Let(sp.Symbol(name), Quoted(value))
