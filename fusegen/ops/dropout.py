"""Dropout: random zeros that the backward draws again."""

from __future__ import annotations

import sympy as sp

from fusegen.atoms import uniform, where
from fusegen.ops.declare import Submodule, op


@op(
    "nn.functional.dropout",
    eval_mode="identity",
    submodule=Submodule("nn.Dropout", keywords=("p",)),
)
def dropout(x: sp.Expr, *, p: float = 0.5) -> sp.Expr:
    """0 with probability p, else x / (1 - p). Srivastava et al. 2014; torch.nn.Dropout."""
    return where(uniform() < p, 0, x * (1 / (1 - p)))
