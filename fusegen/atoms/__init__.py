"""Atoms: the functions that formulas are made of, as sympy functions, each with its derivative in atoms.

In: sympy. Out: atoms, each one declaration (`declare.py`), their values at numbers (`values.py`), the forms
of what cancels (`complements.py`) and choices that keep a derivative of 0 (`choices.py`). `fusegen.program`
makes nodes of them.
"""

from __future__ import annotations

from fusegen.atoms.absolute_value import absolute, sign, softsign
from fusegen.atoms.constant_parts import detach
from fusegen.atoms.declare import ATOMS, Atom, Cancels, Pointwise, Shape
from fusegen.atoms.elementary import exp, expm1, log, log1p, rsqrt, sqrt
from fusegen.atoms.halves import (
    HALF_FUNCTIONS,
    TORCH_HALVES,
    HalfOf,
    Halves,
    at_half,
    first_half,
    halves,
    second_half,
)
from fusegen.atoms.named_parts import Let, Quoted, let
from fusegen.atoms.powers import power, raised
from fusegen.atoms.rows import (
    COLS,
    COLUMN,
    ROW_FUNCTIONS,
    ROWS,
    SAMPLE,
    TORCH_REDUCTIONS,
    ColumnSum,
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
    normcdf,
    normpdf,
    sech2,
    sigmoid,
    softplus,
    tanh,
    tanhshrink,
)
from fusegen.atoms.special import Special, infinity, minus_infinity, undefined, where

__all__ = [
    "ATOMS",
    "COLS",
    "COLUMN",
    "HALF_FUNCTIONS",
    "ROWS",
    "ROW_FUNCTIONS",
    "SAMPLE",
    "TORCH_HALVES",
    "TORCH_REDUCTIONS",
    "Atom",
    "Cancels",
    "ColumnSum",
    "HalfOf",
    "Halves",
    "Let",
    "Pointwise",
    "Quoted",
    "Rng",
    "RowMax",
    "RowShift",
    "RowSum",
    "RowTake",
    "SampleSum",
    "Shape",
    "Special",
    "Total",
    "absolute",
    "at_half",
    "column_sum",
    "detach",
    "erf",
    "exp",
    "expm1",
    "first_half",
    "halves",
    "infinity",
    "let",
    "log",
    "log1p",
    "minus_infinity",
    "normcdf",
    "normpdf",
    "power",
    "raised",
    "row_max",
    "row_mean",
    "row_shift",
    "row_sum",
    "row_take",
    "rsqrt",
    "sample_sum",
    "sech2",
    "second_half",
    "sigmoid",
    "sign",
    "softplus",
    "softsign",
    "sqrt",
    "tanh",
    "tanhshrink",
    "total",
    "undefined",
    "uniform",
    "where",
]
