"""Kinds: sets of axes, with the rules that make others of them.

An expression varies along every axis of its arguments (`joined`): what lacks an axis is broadcast along it. A
reduction removes axes (`kept`). The adjoint of either is the other one, over the same axes
(`program/calculus.py`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from functools import reduce
from operator import or_

import sympy as sp

from fusegen.atoms.axes import axes_of
from fusegen.atoms.rows import Reduction

__all__ = ["Kind", "joined", "kept", "kind_of_formula"]


class Kind(enum.Flag):
    """The axes a value varies along.

    CHANNEL occurs only as the kind of a tensor. In a program, what is read from it has another kind.
    """

    SCALAR = 0
    ROW = 1
    COL = 2
    FULL = 3
    CHANNEL = 4

    @property
    def label(self) -> str:
        """The kind's name in specs and messages."""
        return (self.name or "scalar").lower()

    @property
    def extents(self) -> tuple[str, ...]:
        """What the numbers of elements along its axes are called, such as rows and cols."""
        return tuple(_EXTENTS[axis] for axis in self)

    @property
    def shape(self) -> str:
        """The kind's shape in terms of the activation's, as users read it."""
        return f"[{', '.join(self.extents)}]"

    @classmethod
    def along(cls, extents: Iterable[str]) -> Kind:
        """Return the kind of what varies along axes with these names for their extents."""
        return joined(axis for axis, extent in _EXTENTS.items() if extent in extents)


_EXTENTS = {Kind.ROW: "rows", Kind.COL: "cols", Kind.CHANNEL: "channels"}


def joined(kinds: Iterable[Kind]) -> Kind:
    """Return the kind of an expression over values of some kinds."""
    return reduce(or_, kinds, Kind.SCALAR)


def kept(reduction: Reduction, kind: Kind = Kind.FULL) -> Kind:
    """Return the kind that a reduction leaves of what it reduces."""
    return kind & ~Kind.along(reduction.over)


def kind_of_formula(expr: sp.Basic, of: Callable[[sp.Symbol], Kind]) -> Kind:
    """Return the kind of a formula.

    Args:
        expr: the formula. What it reduces over columns has a number for each row, even if all are equal.
        of: returns the kind of a symbol.
    """
    return axes_of(expr, of, lambda part, inner: kept(part, inner | Kind.ROW), Kind.SCALAR)
