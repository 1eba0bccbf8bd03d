"""The two halves of a row: the first `cols / 2` elements, and those after them.

A formula that has these is computed half by half (`at_half`): it becomes two formulas, each over both halves
of what it names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import sympy as sp

from fusegen.atoms.named_parts import Let, Quoted
from fusegen.atoms.rows import COLS, RowSum, Total

__all__ = [
    "HALF_FUNCTIONS",
    "TORCH_HALVES",
    "HalfOf",
    "Halves",
    "at_half",
    "first_half",
    "halves",
    "second_half",
]


class _OfHalves(sp.Function):
    """A function of the halves of a row. It is resolved before the program, so it is never differentiated."""

    nargs = 2
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        raise TypeError(f"{self.func.__name__} is resolved before anything is differentiated")


class HalfOf(_OfHalves):
    """One half of a row, as wide as that half: the second argument is 0 for the first, 1 for the second."""


class Halves(_OfHalves):
    """A row whose first half is the first argument, and whose second half is the second one."""


#: The functions of the halves of a row.
HALF_FUNCTIONS = (HalfOf, Halves)

#: What they are by torch: functions of the torch module and the arguments.
TORCH_HALVES: dict[type[sp.Basic], Callable[..., Any]] = {
    HalfOf: lambda torch, x, place: x.chunk(2, -1)[place],
    Halves: lambda torch, first, second: torch.cat((first, second), -1),
}


def first_half(x: Any) -> sp.Expr:
    """The first half of a row."""
    return HalfOf(x, 0)


def second_half(x: Any) -> sp.Expr:
    """The second half of a row."""
    return HalfOf(x, 1)


def halves(first: Any, second: Any) -> sp.Expr:
    """The row that two halves make: `halves(-second_half(x), first_half(x))`."""
    return Halves(first, second)


def at_half(
    expr: sp.Basic,
    place: int,
    values: Mapping[sp.Symbol, tuple[sp.Symbol, sp.Symbol]] = MappingProxyType({}),
) -> sp.Expr:
    """Return what a formula is in one half of the row.

    A sum over the row is the sum of both halves there.

    Args:
        expr: the formula.
        place: 0 for the first half, 1 for the second.
        values: the first and the second half of what a symbol stands for, if they differ.
    """
    if expr.is_Symbol:
        if expr == COLS:
            return 2 * COLS
        return values[expr][place] if expr in values else expr
    if isinstance(expr, HalfOf):
        value, half = expr.args
        return at_half(value, int(half), values)
    if isinstance(expr, Halves):
        return at_half(expr.args[place], place, values)
    if isinstance(expr, RowSum | Total):
        return expr.func(sum(at_half(expr.args[0], half, values) for half in (0, 1)))
    if isinstance(expr, Let):
        return Let(expr.args[0], Quoted(at_half(expr.value, place, values)))
    if not expr.args:
        return expr
    return expr.func(*(at_half(arg, place, values) for arg in expr.args))
