"""Constants of formulas: how numbers are held, how large they may be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import mpmath
import sympy as sp

__all__ = ["DIGITS", "MAX_EXPONENT", "number", "parts", "problem", "value_of"]

#: The largest magnitude of a constant exponent.
MAX_EXPONENT = 64
#: The longest numerator or denominator of an exact number, in bits.
MAX_BITS = 4096
#: The decimal digits that constants are folded with, so that the nearest double is found.
DIGITS = 30


def number(value: float) -> sp.Expr:
    """Return a number as formulas hold it: exact where it is integral, else with 17 digits."""
    if float(value).is_integer() and abs(value) < 2**53:
        return sp.Integer(int(value))
    return sp.Float(repr(float(value)), 17)


def value_of(expr: sp.Expr) -> Any:
    """Return a constant's value to 30 digits as an mpf, or None for what is no constant."""
    if expr.is_Rational:
        with mpmath.workdps(DIGITS):
            return mpmath.mpf(int(expr.p)) / int(expr.q)
    if expr.free_symbols or expr.has(sp.Function):
        return None
    value = expr.evalf(DIGITS)
    return value._to_mpmath(value._prec) if value.is_Float else None


def problem(expr: sp.Expr) -> str | None:
    """Return why an expression is not finite, real and of sane size, or None if it is."""
    for part in parts(expr):
        if part in (sp.zoo, sp.nan, sp.oo, -sp.oo):
            return "a constant that is not finite"
        if part is sp.I:
            return "a root or logarithm of a negative number is no real number"
        if part.is_Rational and max(part.p.bit_length(), part.q.bit_length()) > MAX_BITS:
            return "an exact number with too many digits: write it as 1e30"
        if part.is_Atom and part.is_number and abs(part) > sys.float_info.max:
            return "a constant that is too large for a double"
        exponent = value_of(part.exp) if isinstance(part, sp.Pow) else None
        if exponent is not None and abs(exponent) > MAX_EXPONENT:
            return f"the exponent is too large: at most {MAX_EXPONENT}"
    return None


def parts(expr: sp.Basic) -> Iterator[Any]:
    """Yield an expression and every part of it."""
    stack = [expr]
    while stack:
        part = stack.pop()
        yield part
        stack.extend(part.args)
        stack.extend(getattr(part, "inside", ()))
