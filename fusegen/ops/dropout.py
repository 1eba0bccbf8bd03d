"""Dropout: zeros at random places. The backward draws the same random numbers again, so nothing is stored."""

from __future__ import annotations

import sympy as sp

from fusegen.atoms import sqrt, uniform, where
from fusegen.ops.declare import op
from fusegen.ops.model import Range, Submodule


@op(
    "nn.functional.dropout",
    eval_mode="identity",
    ranges={"p": Range(0, 1)},
    submodule=Submodule("nn.Dropout", keywords=("p",)),
)
def dropout(x: sp.Expr, *, p: float = 0.5) -> sp.Expr:
    """0 with probability p, else x / (1 - p). Srivastava et al. 2014; torch.nn.Dropout."""
    return where(uniform() < p, 0, x * (1 / (1 - p)))


@op(
    "nn.functional.alpha_dropout",
    eval_mode="identity",
    ranges={"p": Range(0, 1)},
    submodule=Submodule("nn.AlphaDropout", keywords=("p",)),
)
def alpha_dropout(x: sp.Expr, *, p: float = 0.5) -> sp.Expr:
    """a y + b, y = -s with probability p, else x; keeps mean and variance. Klambauer et al. 2017."""
    s = 1.7580993408473766
    a = 1 / sqrt((1 - p) * (1 + s**2 * p))
    return where(uniform() < p, -s * a + s * a * p, a * x + s * a * p)
