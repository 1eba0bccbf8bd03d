"""Gated linear units: x times a function of a gate.

The gate is an operand. Without it, an op uses the two halves of one tensor along `dim`: the value, then the
gate.
"""

from __future__ import annotations

import sympy as sp

from fusegen.atoms import sigmoid
from fusegen.ops.activations import gelu, relu, swish
from fusegen.ops.declare import op


@op(halves="gate")
def glu(x: sp.Expr, gate: sp.Expr, *, dim: int = -1) -> sp.Expr:
    """x sigmoid(gate). Dauphin et al. 2016, arXiv:1612.08083; torch.nn.GLU."""
    return x * sigmoid(gate)


@op(halves="gate", choices={"approximate": ("none", "tanh")})
def geglu(x: sp.Expr, gate: sp.Expr, *, dim: int = -1, approximate: str = "none") -> sp.Expr:
    """x gelu(gate). Shazeer 2020, arXiv:2002.05202."""
    return x * gelu.formula(gate, approximate=approximate)


@op(halves="gate")
def swiglu(x: sp.Expr, gate: sp.Expr, *, dim: int = -1, beta: float = 1.0) -> sp.Expr:
    """x swish(gate), swish(y) = y sigmoid(beta y). Shazeer 2020, arXiv:2002.05202."""
    return x * swish.formula(gate, beta=beta)


@op(halves="gate")
def reglu(x: sp.Expr, gate: sp.Expr, *, dim: int = -1) -> sp.Expr:
    """x max(gate, 0). Shazeer 2020, arXiv:2002.05202."""
    return x * relu.formula(gate)
