"""Softmax and its logarithm over the last dim."""

from __future__ import annotations

import sympy as sp

from fusegen.atoms import exp, let, log, row_shift, row_sum
from fusegen.ops.declare import op


@op("nn.functional.softmax", dims=("dim",))
def softmax(x: sp.Expr, *, dim: int = -1) -> sp.Expr:
    """exp(x - max) / sum exp(x - max). torch.nn.Softmax."""
    e = let("exp", exp(x - row_shift(x)))
    return e / row_sum(e)


@op("nn.functional.log_softmax", dims=("dim",))
def log_softmax(x: sp.Expr, *, dim: int = -1) -> sp.Expr:
    """x - max - log sum exp(x - max). torch.nn.LogSoftmax."""
    shifted = let("shifted", x - row_shift(x))
    return shifted - log(row_sum(exp(shifted)))
