"""Softmax over a row, its logarithm, the logarithm of its denominator, and a causal mask for them."""

from __future__ import annotations

import sympy as sp

from fusegen.atoms import (
    COLUMN,
    absolute,
    exp,
    infinity,
    let,
    log,
    minus_infinity,
    row_shift,
    row_sum,
    where,
)
from fusegen.ops.declare import op


@op("nn.functional.softmax", dims=("dim",), several=True, one_in_torch=True)
def softmax(x: sp.Expr, *, dim: int = -1) -> sp.Expr:
    """exp(x - max) / sum exp(x - max). torch.nn.Softmax."""
    e = let("exp", exp(x - row_shift(x)))
    return e / row_sum(e)


@op("nn.functional.softmin", dims=("dim",), several=True, one_in_torch=True)
def softmin(x: sp.Expr, *, dim: int = -1) -> sp.Expr:
    """exp(min - x) / sum exp(min - x). torch.nn.Softmin."""
    return softmax.formula(let("negative", -x))


@op("nn.functional.log_softmax", dims=("dim",), several=True, one_in_torch=True)
def log_softmax(x: sp.Expr, *, dim: int = -1) -> sp.Expr:
    """x - max - log sum exp(x - max). torch.nn.LogSoftmax."""
    shifted = let("shifted", x - row_shift(x))
    return shifted - log(row_sum(exp(shifted)))


@op("logsumexp", dims=("dim",), several=True)
def logsumexp(x: sp.Expr, *, dim: int, keepdim: bool = False) -> sp.Expr:
    """max + log sum exp(x - max), and max where that is infinite. torch.logsumexp."""
    largest = row_shift(x)
    return where(absolute(largest) < infinity, largest + log(row_sum(exp(x - largest))), largest)


@op(classes="position")
def causal_mask(x: sp.Expr, position: sp.Expr) -> sp.Expr:
    """x up to column number position, -infinity after it. Vaswani et al. 2017, arXiv:1706.03762."""
    return where(position >= COLUMN, x, minus_infinity)
