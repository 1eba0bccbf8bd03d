"""Choices between values, and the values that are no real numbers: infinity and NaN."""

from __future__ import annotations

import math
from typing import Any

import sympy as sp

__all__ = ["Special", "infinity", "minus_infinity", "undefined", "where"]


class Special(sp.Function):
    """A number that is no real one: `infinity`, `minus_infinity` or `undefined`."""

    nargs = 1
    is_real = True

    def _sympystr(self, printer: Any) -> str:
        return {1: "infinity", -1: "-infinity", 0: "nan"}[int(self.args[0])]

    @property
    def value(self) -> float:
        """The number itself."""
        return {1: math.inf, -1: -math.inf, 0: math.nan}[int(self.args[0])]


infinity = Special(sp.Integer(1))
minus_infinity = Special(sp.Integer(-1))
#: NaN: what a result is that has no value.
undefined = Special(sp.Integer(0))


def where(condition: Any, value: Any, other: Any) -> sp.Expr:
    """`value` where the condition holds, else `other` (also where a NaN makes the condition false)."""
    return sp.Piecewise((value, condition), (other, True))
