"""Functions of a whole row, of a column or of all elements, the numbers of their elements, and random ones.

The program makes nodes of them (`fusegen.program.from_formula`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import sympy as sp

#: The number of columns of the activation, as a symbol: what `row_mean` divides by.
COLS = sp.Symbol("cols", integer=True, positive=True)
#: The number of rows of the activation.
ROWS = sp.Symbol("rows", integer=True, positive=True)
#: How many of them a `SampleSum` adds up.
SAMPLE = sp.Symbol("sample", integer=True, positive=True)
#: The number of the element's column, from 0.
COLUMN = sp.Symbol("column", integer=True, nonnegative=True)


class Rng(sp.Function):
    """A uniform number in [0, 1) for each element; the argument tells the streams of one chain apart."""

    nargs = 1
    is_real = True


class Reduction(sp.Function):
    """A sum, a maximum or one element of a row, a column or all elements. The program turns it into a node;
    it is never differentiated here."""

    nargs = 1
    is_real = True
    #: What it does with the elements.
    op: Literal["sum", "max", "take"] = "sum"
    #: The axes that it removes, by the names of their extents.
    over: tuple[str, ...] = ("cols",)
    #: Those of them along which an argument that does not vary counts once for each element.
    counts: tuple[str, ...] = ("cols",)
    #: Whether the result does not depend on it, so that no gradient runs through it. Such a sum takes the
    #: first rows alone, a sixteenth of them (at least one).
    shift_invariant = False
    #: The word for it in names.
    word = "sum"

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        raise TypeError(
            f"{self.func.__name__} is differentiated by the program's calculus, not by sympy"
        )


class RowSum(Reduction):
    """The sum over a row's columns."""


class RowMax(Reduction):
    """The largest value of a row; its gradient goes to the largest elements, shared evenly (torch.amax)."""

    op = "max"
    word = "max"


class RowShift(Reduction):
    """A row's largest value where the result does not depend on it: it only guards exp from overflow."""

    op = "max"
    shift_invariant = True
    word = "max"


class RowTake(Reduction):
    """A row's element in the column that the second argument names: an operand with an int64 number for each
    row. Where that is no column, it is the row's first element, which must then go unused."""

    nargs = 2
    op = "take"


class ColumnSum(Reduction):
    """The sum over a column's rows."""

    over = counts = ("rows",)
    word = "column_sum"


class SampleSum(Reduction):
    """The sum over the first rows of a column, where the result does not depend on it: it only keeps squares
    small."""

    over = counts = ("rows",)
    shift_invariant = True
    word = "sample_sum"


class Total(Reduction):
    """The sum over all elements, or over all rows of what does not vary along a row."""

    over = ("rows", "cols")
    counts = ("rows",)
    word = "total"


row_sum, row_max, row_shift, row_take, total = RowSum, RowMax, RowShift, RowTake, Total
column_sum, sample_sum = ColumnSum, SampleSum

#: The functions of a whole row.
ROW_FUNCTIONS = (RowSum, RowMax, RowShift, RowTake)

#: What some are by torch: functions of the torch module, of a tensor and of the dims that make up a row.
TORCH_REDUCTIONS: dict[type[sp.Basic], Callable[..., Any]] = {
    RowSum: lambda torch, x, dims: x.sum(dims, keepdim=True),
    RowMax: lambda torch, x, dims: x.amax(dims, keepdim=True),
    RowShift: lambda torch, x, dims: x.amax(dims, keepdim=True).detach(),
    Total: lambda torch, x, dims: torch.sum(x),
}


def row_mean(value: Any) -> sp.Expr:
    """The mean over a row's columns."""
    return RowSum(value) / COLS


def uniform(stream: int = 0) -> sp.Expr:
    """A fresh uniform number in [0, 1) for each element."""
    return Rng(sp.Integer(stream))
