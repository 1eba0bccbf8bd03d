"""Gated linear units: x times a function of a gate.

The gate is an operand. Without it, an op uses the two halves of one tensor along `dim`: the value, then the
gate; with `gate_first`, the gate, then the value. If they are `alternating`, one has the even columns of the
last dim and the other the odd ones. What else is done to the halves, such as a clamp, is a formula that names
them: `expr: {formula: ..., parts: [gate, up]}`.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from fusegen.atoms import sigmoid
from fusegen.ops.activations import gelu, relu, swish
from fusegen.ops.declare import op

_OF_PARTS: dict[str, Any] = {"parts": ("gate",), "of_parts": ("dim", "gate_first", "alternating")}


def _value_and_gate(x: sp.Expr, gate: sp.Expr, gate_first: bool) -> tuple[sp.Expr, sp.Expr]:
    """Return the value and the gate, which come from the first and the second half, or the reverse."""
    return (gate, x) if gate_first else (x, gate)


@op(**_OF_PARTS)
def glu(
    x: sp.Expr,
    gate: sp.Expr,
    *,
    dim: int = -1,
    gate_first: bool = False,
    alternating: bool = False,
) -> sp.Expr:
    """x sigmoid(gate). Dauphin et al. 2016, arXiv:1612.08083; torch.nn.GLU."""
    x, gate = _value_and_gate(x, gate, gate_first)
    return x * sigmoid(gate)


@op(choices={"approximate": ("none", "tanh")}, **_OF_PARTS)
def geglu(
    x: sp.Expr,
    gate: sp.Expr,
    *,
    dim: int = -1,
    gate_first: bool = False,
    alternating: bool = False,
    approximate: str = "none",
) -> sp.Expr:
    """x gelu(gate). Shazeer 2020, arXiv:2002.05202."""
    x, gate = _value_and_gate(x, gate, gate_first)
    return x * gelu.formula(gate, approximate=approximate)


@op(**_OF_PARTS)
def swiglu(
    x: sp.Expr,
    gate: sp.Expr,
    *,
    dim: int = -1,
    gate_first: bool = False,
    alternating: bool = False,
    beta: float = 1.0,
) -> sp.Expr:
    """x swish(gate), swish(y) = y sigmoid(beta y). Shazeer 2020, arXiv:2002.05202."""
    x, gate = _value_and_gate(x, gate, gate_first)
    return x * swish.formula(gate, beta=beta)


@op(**_OF_PARTS)
def reglu(
    x: sp.Expr,
    gate: sp.Expr,
    *,
    dim: int = -1,
    gate_first: bool = False,
    alternating: bool = False,
) -> sp.Expr:
    """x max(gate, 0). Shazeer 2020, arXiv:2002.05202."""
    x, gate = _value_and_gate(x, gate, gate_first)
    return x * relu.formula(gate)
