"""Atoms: the functions that formulas are made of, as sympy functions, each with its derivative in atoms.

In: sympy. Out: atoms, each one declaration (`declare.py`), and what is known of them, a subject each file.
"""

from __future__ import annotations

from fusegen.atoms.absolute_value import absolute, sign, softsign
from fusegen.atoms.angles import acos, asin, atan, atan2, hypot, tan
from fusegen.atoms.bases import exp2, log2, log10, logaddexp, xlogy
from fusegen.atoms.constant_parts import detach, straight_through
from fusegen.atoms.declare import ATOMS, Atom, Cancels, Pointwise, Shape
from fusegen.atoms.elementary import exp, expm1, log, log1p, rsqrt, sqrt
from fusegen.atoms.halves import (
    HALF_FUNCTIONS,
    HALVES,
    TORCH_HALVES,
    Partition,
    PartOf,
    at_part,
    first_half,
    halves,
    partitions,
    second_half,
)
from fusegen.atoms.hyperbolic import acosh, asinh, atanh, cosh, sinh
from fusegen.atoms.named_parts import Let, Quoted, let
from fusegen.atoms.powers import power, raised
from fusegen.atoms.rounding import ceil, floor, round_half_even, trunc
from fusegen.atoms.rows import (
    COLS,
    COLUMN,
    ROW_FUNCTIONS,
    ROWS,
    SAMPLE,
    TORCH_REDUCTIONS,
    ColumnSum,
    Reduction,
    Rng,
    RowMax,
    RowShift,
    RowSum,
    RowTake,
    SampleSum,
    Total,
    column_sum,
    row_max,
    row_mean,
    row_shift,
    row_sum,
    row_take,
    sample_sum,
    total,
    uniform,
)
from fusegen.atoms.saturating import (
    erf,
    erfc,
    normcdf,
    normpdf,
    sech2,
    sigmoid,
    softplus,
    tanh,
    tanh_softplus,
    tanh_softplus_slope,
    tanhshrink,
)
from fusegen.atoms.special import Special, infinity, minus_infinity, undefined, where
from fusegen.atoms.sums import together

__all__ = [
    "ATOMS", "COLS", "COLUMN", "HALF_FUNCTIONS", "HALVES", "ROWS", "ROW_FUNCTIONS", "SAMPLE",
    "TORCH_HALVES", "TORCH_REDUCTIONS", "Atom", "Cancels", "ColumnSum", "Let", "PartOf",
    "Partition", "Pointwise", "Quoted", "Reduction", "Rng", "RowMax", "RowShift", "RowSum",
    "RowTake", "SampleSum", "Shape", "Special", "Total", "absolute", "acos", "acosh", "asin",
    "asinh", "at_part", "atan", "atan2", "atanh", "ceil", "column_sum", "cosh", "detach", "erf",
    "erfc", "exp", "exp2", "expm1", "first_half", "floor", "halves", "hypot", "infinity", "let",
    "log", "log1p", "log2", "log10", "logaddexp", "minus_infinity", "normcdf", "normpdf",
    "partitions", "power", "raised", "round_half_even", "row_max", "row_mean", "row_shift",
    "row_sum", "row_take", "rsqrt", "sample_sum", "sech2", "second_half", "sigmoid", "sign",
    "sinh", "softplus", "softsign", "sqrt", "straight_through", "tan", "tanh", "tanh_softplus",
    "tanh_softplus_slope", "tanhshrink", "together", "total", "trunc", "undefined", "uniform",
    "where", "xlogy",
]  # fmt: skip
