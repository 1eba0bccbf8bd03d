"""Choices between values, and numbers that sympy does not calculate with: infinity, NaN, 0 as a factor."""

from __future__ import annotations

import math
from typing import Any

import sympy as sp

__all__ = ["Special", "infinity", "minus_infinity", "undefined", "where", "zero"]


class Special(sp.Function):
    """A number that sympy does not calculate with: `infinity`, `minus_infinity`, `undefined` or `zero`."""

    nargs = 1
    is_real = True

    def _sympystr(self, printer: Any) -> str:
        return {1: "infinity", -1: "-infinity", 0: "nan", 2: "0.0"}[int(self.args[0])]

    @property
    def value(self) -> float:
        """The number itself."""
        return {1: math.inf, -1: -math.inf, 0: math.nan, 2: 0.0}[int(self.args[0])]


infinity = Special(sp.Integer(1))
minus_infinity = Special(sp.Integer(-1))
#: NaN: what a result is that has no value.
undefined = Special(sp.Integer(0))
#: 0, as a factor: 0 times an infinity is NaN.
zero = Special(sp.Integer(2))


def where(condition: Any, value: Any, other: Any) -> sp.Expr:
    """`value` where the condition holds, else `other` (also where a NaN makes the condition false)."""
    return sp.Piecewise((value, condition), (other, True))
