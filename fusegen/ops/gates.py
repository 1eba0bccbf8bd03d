"""Gated linear units of two inputs: the activation times a function of the gate.

torch has glu alone, and of one tensor whose second half is the gate: `apply(*x.chunk(2, -1))` is it.
"""

from __future__ import annotations

import sympy as sp

from fusegen.atoms import sigmoid
from fusegen.ops.activations import gelu, relu, swish
from fusegen.ops.declare import op


@op()
def glu(x: sp.Expr, gate: sp.Expr) -> sp.Expr:
    """x sigmoid(gate). Dauphin et al. 2016, arXiv:1612.08083; torch.nn.GLU of two halves."""
    return x * sigmoid(gate)


@op(choices={"approximate": ("none", "tanh")})
def geglu(x: sp.Expr, gate: sp.Expr, *, approximate: str = "none") -> sp.Expr:
    """x gelu(gate). Shazeer 2020, arXiv:2002.05202."""
    return x * gelu.formula(gate, approximate=approximate)


@op()
def swiglu(x: sp.Expr, gate: sp.Expr, *, beta: float = 1.0) -> sp.Expr:
    """x swish(gate), swish(y) = y sigmoid(beta y). Shazeer 2020, arXiv:2002.05202."""
    return x * swish.formula(gate, beta=beta)


@op()
def reglu(x: sp.Expr, gate: sp.Expr) -> sp.Expr:
    """x max(gate, 0). Shazeer 2020, arXiv:2002.05202."""
    return x * relu.formula(gate)
