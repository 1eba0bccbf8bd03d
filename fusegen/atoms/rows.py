"""Functions of a whole row, of a column or of all elements, the numbers of their elements, and random ones.

The program makes nodes of them (`fusegen.program.from_formula`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


class _Reduction(sp.Function):
    """A function of a whole row. The program turns it into a node; it is never differentiated here."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        raise TypeError(
            f"{self.func.__name__} is differentiated by the program's calculus, not by sympy"
        )


class RowSum(_Reduction):
    """The sum over a row's columns."""


class RowMax(_Reduction):
    """The largest value of a row; its gradient goes to the largest elements, shared evenly (torch.amax)."""


class RowShift(_Reduction):
    """A row's largest value where the result does not depend on it: it only guards exp from overflow,
    and no gradient runs through it."""


class RowTake(_Reduction):
    """A row's element in the column that the second argument names: an operand with an int64 number for each
    row. Where that is no column, it is the row's first element, which must then go unused."""

    nargs = 2


class ColumnSum(_Reduction):
    """The sum over a column's rows."""


class SampleSum(_Reduction):
    """The sum over the first rows of a column, a sixteenth of them (at least one), where the result does not
    depend on it: it only keeps squares small, and no gradient runs through it."""


class Total(_Reduction):
    """The sum over all elements, or over all rows of what does not vary along a row."""


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
