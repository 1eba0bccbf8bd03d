"""Arithmetic of x with operands. An operand is a tensor, a number or a float argument of the spec."""

from __future__ import annotations

import sympy as sp

from fusegen import atoms
from fusegen.atoms import absolute, infinity, let, minus_infinity, where
from fusegen.ops.declare import op


@op("add")
def add(x: sp.Expr, other: sp.Expr, *, alpha: float = 1.0) -> sp.Expr:
    """x + alpha other. torch.add."""
    return x + alpha * other


@op("sub", aliases=("subtract",))
def sub(x: sp.Expr, other: sp.Expr, *, alpha: float = 1.0) -> sp.Expr:
    """x - alpha other. torch.sub."""
    return x - alpha * other


@op("rsub")
def rsub(x: sp.Expr, other: sp.Expr, *, alpha: float = 1.0) -> sp.Expr:
    """other - alpha x. torch.rsub."""
    return other - alpha * x


@op("mul", aliases=("scale", "multiply"))
def mul(x: sp.Expr, other: sp.Expr) -> sp.Expr:
    """x other. torch.mul."""
    return x * other


@op(
    "div",
    aliases=("divide",),
    refused={"rounding_mode": "a rounded quotient has no derivative; leave it out"},
)
def div(x: sp.Expr, other: sp.Expr) -> sp.Expr:
    """x / other. torch.div."""
    return x / other


@op("minimum")
def minimum(x: sp.Expr, other: sp.Expr) -> sp.Expr:
    """The smaller of x and other; where they are equal, each gets half the gradient. torch.minimum."""
    return where(x < other, x, where(other < x, other, _of_equals(x, other)))


@op("maximum")
def maximum(x: sp.Expr, other: sp.Expr) -> sp.Expr:
    """The larger of x and other; where they are equal, each gets half the gradient. torch.maximum."""
    return where(x > other, x, where(other > x, other, _of_equals(x, other)))


def _of_equals(x: sp.Expr, other: sp.Expr) -> sp.Expr:
    """Return x where it equals other, with half the gradient for each; NaN if either is NaN, with the full
    gradient for both."""
    return where(sp.Eq(x, other), x / 2 + other / 2, x + other)


@op(conditions=("condition",))
def where_(x: sp.Expr, condition: sp.Expr, other: sp.Expr) -> sp.Expr:
    """x where condition is not 0, else other; no gradient runs through condition. torch.where."""
    return where(sp.Ne(condition, 0), x, other)


@op("masked_fill", conditions=("mask",), choices={"value": ("inf", "-inf")})
def masked_fill(x: sp.Expr, mask: sp.Expr, *, value: float) -> sp.Expr:
    """value where mask is true, else x; no gradient runs through mask. torch.masked_fill."""
    infinite = {sp.oo: infinity, -sp.oo: minus_infinity}
    return where(sp.Ne(mask, 0), infinite.get(value, value), x)


@op("lerp")
def lerp(x: sp.Expr, end: sp.Expr, weight: sp.Expr) -> sp.Expr:
    """x + weight (end - x), from end where |weight| >= 1 / 2, so that it is end at 1. torch.lerp."""
    away = let("away", end - x)
    near = absolute(weight) < sp.Rational(1, 2)
    return where(near, x + weight * away, end - (1 - weight) * away)


@op("addcmul")
def addcmul(x: sp.Expr, tensor1: sp.Expr, tensor2: sp.Expr, *, value: float = 1.0) -> sp.Expr:
    """x + value tensor1 tensor2. torch.addcmul."""
    return x + value * tensor1 * tensor2


@op("logaddexp")
def logaddexp(x: sp.Expr, other: sp.Expr) -> sp.Expr:
    """log(exp(x) + exp(other)), which does not overflow. torch.logaddexp."""
    return atoms.logaddexp(x, other)


@op("xlogy")
def xlogy(x: sp.Expr, other: sp.Expr) -> sp.Expr:
    """x log(other), 0 where x is 0 and other a number. torch.xlogy."""
    return atoms.xlogy(x, other)


@op("hypot")
def hypot(x: sp.Expr, other: sp.Expr) -> sp.Expr:
    """sqrt(x^2 + other^2), whose squares do not overflow; NaN as derivative where both are 0. torch.hypot."""
    return atoms.hypot(x, other)


@op("atan2", aliases=("arctan2",))
def atan2(x: sp.Expr, other: sp.Expr) -> sp.Expr:
    """The angle of the point (other, x); where both are 0 its derivatives are 0. torch.atan2."""
    return atoms.atan2(x, other)
