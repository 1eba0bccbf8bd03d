"""Arithmetic of the activation with one operand, which may be a tensor, a number or an argument."""

from __future__ import annotations

import sympy as sp

from fusegen.ops.declare import op


@op("add")
def add(x: sp.Expr, other: sp.Expr) -> sp.Expr:
    """x + other. torch.add."""
    return x + other


@op("sub")
def sub(x: sp.Expr, other: sp.Expr) -> sp.Expr:
    """x - other. torch.sub."""
    return x - other


@op("mul", aliases=("scale",))
def mul(x: sp.Expr, other: sp.Expr) -> sp.Expr:
    """x other. torch.mul."""
    return x * other


@op("div")
def div(x: sp.Expr, other: sp.Expr) -> sp.Expr:
    """x / other. torch.div."""
    return x / other
