"""Rotary position embedding: pairs of elements of a row, one from each half, are turned by an angle.

The angle's cosine and sine are tensors as wide as the row, broadcast over its batch and heads. `rope` gives
them no gradient; the formula `x * cos + rotate_half(x) * sin` does. The last dim must have an even size.
"""

from __future__ import annotations

import sympy as sp

from fusegen.atoms import first_half, halves, second_half
from fusegen.ops.declare import op


@op(paired=True)
def rotate_half(x: sp.Expr) -> sp.Expr:
    """(-x2, x1), where x1 and x2 are the halves of a row. Su et al. 2021, arXiv:2104.09864."""
    return halves(-second_half(x), first_half(x))


@op(paired=True, constant=("cos", "sin"))
def rope(x: sp.Expr, cos: sp.Expr, sin: sp.Expr) -> sp.Expr:
    """x cos + (-x2, x1) sin, where x1 and x2 are the halves of a row. Su et al. 2021, arXiv:2104.09864."""
    return x * cos + rotate_half.formula(x) * sin
