"""What does not vary along a row, a column or at all is computed once for it."""

from __future__ import annotations

import sympy as sp
from shared.small_programs import W, X, element_lines, program_of

from fusegen.atoms import absolute, exp, row_mean, rsqrt, sigmoid, tanh
from fusegen.lower import lower


def test_what_varies_along_columns_alone_is_computed_once_a_column() -> None:
    kernel = lower(program_of(X * (rsqrt(W + 1) * W)))
    assert [f"{line.name} = {line.code}" for line in kernel.col_lines] == [
        "col.op_factor = col.w * Math::rsqrt(col.w + T(1))"
    ]
    assert element_lines(kernel) == ["op = full.x * col.op_factor"]


def test_a_reciprocal_of_a_row_is_computed_once_a_row() -> None:
    kernel = lower(program_of(X / sp.sqrt(row_mean(X**2))))
    assert element_lines(kernel)[-1] == "op = full.x * row.op_factor"


def test_parts_of_one_value_have_names_of_their_own() -> None:
    parts = zip((X, absolute(X), tanh(X)), (rsqrt(W + 1), sigmoid(W), exp(W)), strict=True)
    kernel = lower(program_of(sp.Add(*(a * (b * W) for a, b in parts))))
    names = [line.name for line in kernel.col_lines]
    assert names == ["col.op_factor", "col.op_factor2", "col.op_factor3"]
