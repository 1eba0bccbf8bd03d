"""Parts of a row: its two halves, its even and its odd columns, and its first columns with the rest.

A formula that has these is computed part by part (`at_part`): it becomes one formula for each part, over all
parts of what it names. How a row is cut into parts is its `Partition`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import sympy as sp

from fusegen.atoms.constants import parts
from fusegen.atoms.named_parts import Let, Quoted
from fusegen.atoms.rows import COLS, RowSum, Total

__all__ = [
    "HALF_FUNCTIONS",
    "HALVES",
    "MOST_PARTS",
    "TORCH_HALVES",
    "Alternating",
    "HalfOf",
    "Halves",
    "PartOf",
    "Partition",
    "at_part",
    "first_columns",
    "first_half",
    "halves",
    "joined",
    "other_columns",
    "partitions",
    "parts_held",
    "second_half",
]


#: The most parts that a tensor is cut into: a thread of a kernel has a few elements of each.
MOST_PARTS = 16


class Partition(NamedTuple):
    """How a row is cut into parts of one width."""

    #: The number of parts.
    parts: int = 2
    #: Whether the columns of the first two parts alternate: part 0 has the even ones of both, and part 1 the
    #: odd ones. All other parts are adjacent columns.
    alternating: bool = False

    def step(self, place: int) -> int:
        """Return how far apart the columns of a part are."""
        return 2 if self.alternating and place < 2 else 1


#: A row in two halves.
HALVES = Partition()


class _OfParts(sp.Function):
    """A function of the parts of a row. It is resolved before the program, so it is never differentiated."""

    nargs = 2
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        raise TypeError(f"{self.func.__name__} is resolved before anything is differentiated")


class PartOf(_OfParts):
    """A part of the first argument. The second argument is a number."""


class HalfOf(PartOf):
    """One half of a row, as wide as that half: 0 for the first, 1 for the second."""


class EveryOther(HalfOf):
    """The even columns of a row, 0, or the odd ones, 1."""


class FirstColumns(PartOf):
    """The first two of so many parts of a row."""


class OtherColumns(PartOf):
    """All but the first two of so many parts of a row."""


class Halves(_OfParts):
    """A row whose first half is the first argument, and whose second half is the second one."""


class Alternating(Halves):
    """A row with the first argument in its even columns, and the second one in its odd ones."""


class Joined(_OfParts):
    """A row whose first two parts are the first argument, and whose other parts are the second one."""


#: The functions of the parts of a row.
HALF_FUNCTIONS = (HalfOf, EveryOther, FirstColumns, OtherColumns, Halves, Alternating, Joined)

#: What they are by torch: functions of the torch module, tensors, and the number of a `PartOf`.
TORCH_HALVES: dict[type[sp.Basic], Callable[..., Any]] = {
    HalfOf: lambda torch, x, number: x.chunk(2, -1)[number],
    EveryOther: lambda torch, x, number: x.unflatten(-1, (-1, 2)).select(-1, number),
    FirstColumns: lambda torch, x, number: (
        x.unflatten(-1, (number, -1)).narrow(-2, 0, 2).flatten(-2)
    ),
    OtherColumns: lambda torch, x, number: (
        x.unflatten(-1, (number, -1)).narrow(-2, 2, number - 2).flatten(-2)
    ),
    Halves: lambda torch, first, second: torch.cat((first, second), -1),
    Alternating: lambda torch, even, odd: torch.stack((even, odd), -1).flatten(-2),
    Joined: lambda torch, first, others: torch.cat((first, others), -1),
}


def first_half(x: Any, *, alternating: bool = False) -> sp.Expr:
    """The first half of a row, or its even columns."""
    return (EveryOther if alternating else HalfOf)(x, 0)


def second_half(x: Any, *, alternating: bool = False) -> sp.Expr:
    """The second half of a row, or its odd columns."""
    return (EveryOther if alternating else HalfOf)(x, 1)


def halves(first: Any, second: Any, *, alternating: bool = False) -> sp.Expr:
    """The row that two halves make: `halves(-second_half(x), first_half(x))`."""
    return (Alternating if alternating else Halves)(first, second)


def first_columns(x: Any, count: int) -> sp.Expr:
    """The first two of `count` parts of a row."""
    return FirstColumns(x, count) if count > 2 else x


def other_columns(x: Any, count: int) -> sp.Expr:
    """The parts of a row after the first two of `count`."""
    return OtherColumns(x, count)


def joined(first: Any, others: Any) -> sp.Expr:
    """The row of which the first two parts and the others are given."""
    return Joined(first, others)


def partitions(expr: sp.Basic) -> set[Partition]:
    """Return how a formula cuts rows; two ways contradict each other."""
    counts: set[int] = set()
    ways: set[bool] = set()
    for part in parts(expr):
        if isinstance(part, FirstColumns | OtherColumns):
            counts.add(int(part.args[1]))
        elif isinstance(part, HalfOf | Halves):
            ways.add(isinstance(part, EveryOther | Alternating))
    if not (counts or ways):
        return set()
    return {Partition(count, way) for count in counts or {2} for way in ways or {False}}


def parts_held(expr: sp.Basic, partition: Partition) -> dict[sp.Symbol, set[int]]:
    """Return how many parts of a row each symbol of a formula stands for, where it occurs.

    A number that is broadcast to any width is counted as what it is combined with.
    """
    found: dict[sp.Symbol, set[int]] = {}

    def visit(part: sp.Basic, count: int) -> None:
        if part.is_Symbol:
            found.setdefault(part, set()).add(count)
        elif isinstance(part, FirstColumns | OtherColumns | RowSum | Total):
            visit(part.args[0], partition.parts)
        elif isinstance(part, HalfOf):
            visit(part.args[0], 2)
        elif isinstance(part, Joined):
            visit(part.args[0], 2)
            visit(part.args[1], partition.parts - 2)
        elif isinstance(part, Let):
            visit(part.value, count)
        else:
            for arg in part.args:
                visit(arg, 1 if isinstance(part, Halves) else count)

    visit(expr, partition.parts)
    return found


def at_part(
    expr: sp.Basic,
    place: int,
    values: Mapping[sp.Symbol, Sequence[sp.Symbol]] = MappingProxyType({}),
    count: int = 2,
) -> sp.Expr:
    """Return what a formula is in one part of the row.

    A sum over the row is the sum of all parts there.

    Args:
        expr: the formula.
        place: which part.
        values: the parts of what a symbol stands for, if they differ.
        count: the number of parts.
    """
    if expr.is_Symbol:
        if expr == COLS:
            return count * COLS
        return values[expr][place] if expr in values else expr
    if isinstance(expr, HalfOf):
        value, half = expr.args
        return at_part(value, int(half), values, count)
    if isinstance(expr, Halves):
        return at_part(expr.args[place], place, values, count)
    if isinstance(expr, Joined):
        return at_part(expr.args[int(place >= 2)], place, values, count)
    if isinstance(expr, PartOf):
        return at_part(expr.args[0], place, values, count)
    if isinstance(expr, RowSum | Total):
        return expr.func(sum(at_part(expr.args[0], n, values, count) for n in range(count)))
    if isinstance(expr, Let):
        return Let(expr.args[0], Quoted(at_part(expr.value, place, values, count)))
    if not expr.args:
        return expr
    return expr.func(*(at_part(arg, place, values, count) for arg in expr.args))
