"""Powers whose exponent is not known beforehand."""

from __future__ import annotations

from typing import Any

import mpmath
import sympy as sp

from fusegen.atoms.absolute_value import absolute
from fusegen.atoms.declare import Atom, Pointwise
from fusegen.atoms.elementary import log
from fusegen.atoms.special import minus_infinity, undefined, where

__all__ = ["power", "raised"]

#: How near to 0 the base of a power with exponent 0 counts as 0: x**-3 is still finite in float32 there.
_NEAR = sp.Float(1e-12)


def _by_base(base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
    slope = exponent * power(base, exponent - 1)
    # At exponent 0 the slope is 0 * x**-1, which is 0 and has the right derivative by the exponent.
    # So near to 0 that x**-1 or its derivatives overflow it would be NaN.
    near = where(sp.Eq(exponent, 0), 0, slope)
    return where(absolute(base) > _NEAR, slope, near)


def _by_exponent(base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
    # Where there is no derivative it is a constant, so that nothing of it reaches the next derivative by the
    # base, which there is.
    at_zero = where(exponent >= 0, 0, minus_infinity)
    elsewhere = where(sp.Eq(base, 0), at_zero, undefined)
    return where(base > 0, power(base, exponent) * log(base), elsewhere)


@Atom(
    derivative=(_by_base, _by_exponent),
    value=mpmath.power,
    torch=lambda torch, base, exponent: torch.pow(base, exponent),
    cpp="Math::pow",
    smooth=(),
    fitted=False,
)
class power(Pointwise):
    """x to an exponent that is not known beforehand; torch's derivatives, also at x = 0.

    sympy's own power has the derivative `exponent * x**exponent / x` then, which is NaN at 0.
    """

    nargs = 2


def raised(base: Any, exponent: Any) -> sp.Expr:
    """base to the exponent: sympy's power where the exponent is a number, else the atom."""
    base, exponent = sp.sympify(base), sp.sympify(exponent)
    return base**exponent if exponent.is_number else power(base, exponent)
