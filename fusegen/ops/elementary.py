"""Elementary functions of x: roots, powers, exponentials, logarithms, signs."""

from __future__ import annotations

import sympy as sp

from fusegen.atoms import (
    absolute,
    erf,
    exp,
    expm1,
    log,
    log1p,
    raised,
    rsqrt,
    sign,
    sqrt,
    undefined,
    where,
)
from fusegen.ops.declare import RefusedError, op


@op("exp")
def exp_(x: sp.Expr) -> sp.Expr:
    """exp(x). torch.exp."""
    return exp(x)


@op("expm1")
def expm1_(x: sp.Expr) -> sp.Expr:
    """exp(x) - 1, exact near 0. torch.expm1."""
    return expm1(x)


@op("log")
def log_(x: sp.Expr) -> sp.Expr:
    """log(x), NaN below 0. torch.log."""
    return log(x)


@op("log1p")
def log1p_(x: sp.Expr) -> sp.Expr:
    """log(1 + x), exact near 0. torch.log1p."""
    return log1p(x)


@op("sin")
def sin_(x: sp.Expr) -> sp.Expr:
    """sin(x). torch.sin."""
    return sp.sin(x)


@op("cos")
def cos_(x: sp.Expr) -> sp.Expr:
    """cos(x). torch.cos."""
    return sp.cos(x)


@op("erf")
def erf_(x: sp.Expr) -> sp.Expr:
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x. torch.erf."""
    return erf(x)


@op("sqrt")
def sqrt_(x: sp.Expr) -> sp.Expr:
    """The square root of x, NaN below 0. torch.sqrt."""
    return sqrt(x)


@op("rsqrt")
def rsqrt_(x: sp.Expr) -> sp.Expr:
    """1 / sqrt(x), NaN below 0. torch.rsqrt."""
    return rsqrt(x)


@op("square")
def square(x: sp.Expr) -> sp.Expr:
    """x^2. torch.square."""
    return x**2


@op("pow")
def pow_(x: sp.Expr, exponent: sp.Expr) -> sp.Expr:
    """x to the exponent, NaN below 0 unless that is a whole number. torch.pow."""
    return raised(x, exponent)


@op("reciprocal")
def reciprocal(x: sp.Expr) -> sp.Expr:
    """1 / x. torch.reciprocal."""
    return 1 / x


@op("abs", aliases=("absolute",))
def abs_(x: sp.Expr) -> sp.Expr:
    """The magnitude of x; the derivative at 0 is 0. torch.abs."""
    return absolute(x)


@op("sign")
def sign_(x: sp.Expr) -> sp.Expr:
    """-1, 0 or 1; the derivative is 0. torch.sign."""
    return sign(x)


@op("neg")
def neg(x: sp.Expr) -> sp.Expr:
    """-x. torch.neg."""
    return -x


@op("clamp", aliases=("clip",))
def clamp(x: sp.Expr, *, min: float | None = None, max: float | None = None) -> sp.Expr:
    """x clipped to [min, max]; the derivative at both bounds is 1. torch.clamp."""
    if min is None and max is None:
        raise RefusedError("needs min or max")
    if max is None:
        return where(x < min, min, where(x >= min, x, undefined))
    if min is None:
        return where(x > max, max, where(x <= max, x, undefined))
    least = where(sp.Gt(min, max), max, min)  # where they cross, max is the result
    return where(x > max, max, where(x < min, least, where(x <= max, x, undefined)))
