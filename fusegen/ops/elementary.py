"""Elementary functions of x: roots, powers, exponentials, logarithms, angles, signs, rounding."""

from __future__ import annotations

import sympy as sp

from fusegen import atoms
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


@op("exp2")
def exp2(x: sp.Expr) -> sp.Expr:
    """2^x. torch.exp2."""
    return atoms.exp2(x)


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


@op("log2")
def log2(x: sp.Expr) -> sp.Expr:
    """The logarithm of x to base 2, NaN below 0. torch.log2."""
    return atoms.log2(x)


@op("log10")
def log10(x: sp.Expr) -> sp.Expr:
    """The logarithm of x to base 10, NaN below 0. torch.log10."""
    return atoms.log10(x)


@op("sin")
def sin_(x: sp.Expr) -> sp.Expr:
    """sin(x). torch.sin."""
    return sp.sin(x)


@op("cos")
def cos_(x: sp.Expr) -> sp.Expr:
    """cos(x). torch.cos."""
    return sp.cos(x)


@op("tan")
def tan(x: sp.Expr) -> sp.Expr:
    """sin(x) / cos(x). torch.tan."""
    return atoms.tan(x)


@op("asin", aliases=("arcsin",))
def asin(x: sp.Expr) -> sp.Expr:
    """The angle whose sine is x, NaN where |x| > 1. torch.asin."""
    return atoms.asin(x)


@op("acos", aliases=("arccos",))
def acos(x: sp.Expr) -> sp.Expr:
    """The angle whose cosine is x, NaN where |x| > 1. torch.acos."""
    return atoms.acos(x)


@op("atan", aliases=("arctan",))
def atan(x: sp.Expr) -> sp.Expr:
    """The angle whose tangent is x. torch.atan."""
    return atoms.atan(x)


@op("sinh")
def sinh(x: sp.Expr) -> sp.Expr:
    """(exp(x) - exp(-x)) / 2. torch.sinh."""
    return atoms.sinh(x)


@op("cosh")
def cosh(x: sp.Expr) -> sp.Expr:
    """(exp(x) + exp(-x)) / 2. torch.cosh."""
    return atoms.cosh(x)


@op("asinh", aliases=("arcsinh",))
def asinh(x: sp.Expr) -> sp.Expr:
    """The number whose hyperbolic sine is x. torch.asinh."""
    return atoms.asinh(x)


@op("acosh", aliases=("arccosh",))
def acosh(x: sp.Expr) -> sp.Expr:
    """The number whose hyperbolic cosine is x, NaN below 1. torch.acosh."""
    return atoms.acosh(x)


@op("atanh", aliases=("arctanh",))
def atanh(x: sp.Expr) -> sp.Expr:
    """The number whose hyperbolic tangent is x, NaN where |x| > 1. torch.atanh."""
    return atoms.atanh(x)


@op("erf")
def erf_(x: sp.Expr) -> sp.Expr:
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x. torch.erf."""
    return erf(x)


@op("erfc")
def erfc(x: sp.Expr) -> sp.Expr:
    """1 - erf(x), exact where that is small. torch.erfc."""
    return atoms.erfc(x)


@op("special.ndtr")
def ndtr(x: sp.Expr) -> sp.Expr:
    """(1 + erf(x / sqrt 2)) / 2, the standard normal's distribution function. torch.special.ndtr."""
    return atoms.normcdf(x)


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


@op("floor")
def floor(x: sp.Expr) -> sp.Expr:
    """The largest integer that is not above x; the derivative is 0. torch.floor."""
    return atoms.floor(x)


@op("ceil")
def ceil(x: sp.Expr) -> sp.Expr:
    """The least integer that is not below x; the derivative is 0. torch.ceil."""
    return atoms.ceil(x)


@op("round")
def round_(x: sp.Expr, *, decimals: int = 0) -> sp.Expr:
    """The nearest integer, of two the even one, or number of that many decimals. torch.round."""
    return atoms.round_half_even(x * sp.Integer(10) ** decimals) / sp.Integer(10) ** decimals


@op("trunc", aliases=("fix",))
def trunc(x: sp.Expr) -> sp.Expr:
    """x without its fraction; the derivative is 0. torch.trunc."""
    return atoms.trunc(x)


@op("frac")
def frac(x: sp.Expr) -> sp.Expr:
    """The fraction of x, x - trunc(x), with the sign of x; the derivative is 1. torch.frac."""
    return x - atoms.trunc(x)
