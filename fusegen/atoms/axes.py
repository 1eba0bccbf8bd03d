"""The axes along which a formula varies: those of its symbols, without those that it reduces."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import TypeVar

import sympy as sp

from fusegen.atoms.named_parts import Let
from fusegen.atoms.rows import Reduction

__all__ = ["axes_of"]

#: A set of axes: a kind of the program, or dims of a tensor.
Axes = TypeVar("Axes")


def axes_of(
    expr: sp.Basic,
    of: Callable[[sp.Symbol], Axes],
    reduced: Callable[[Reduction, Axes], Axes],
    none: Axes,
) -> Axes:
    """Return the axes along which a formula varies.

    Args:
        expr: the formula.
        of: returns the axes of a symbol.
        reduced: returns what a reduction leaves of the axes of what it reduces.
        none: no axes.
    """
    if isinstance(expr, sp.Symbol):
        return of(expr)
    if isinstance(expr, Let):
        return axes_of(expr.value, of, reduced, none)
    found: Axes = reduce(or_, (axes_of(part, of, reduced, none) for part in expr.args), none)
    return reduced(expr, found) if isinstance(expr, Reduction) else found
