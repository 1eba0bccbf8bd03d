"""The hyperbolic sine and cosine, and the inverses of sine, cosine and tangent."""

from __future__ import annotations

import math

import mpmath
import sympy as sp

from fusegen.atoms.absolute_value import absolute
from fusegen.atoms.angles import hypot
from fusegen.atoms.declare import Atom, Pointwise, Shape
from fusegen.atoms.elementary import rsqrt

__all__ = ["acosh", "asinh", "atanh", "atanh_slope", "cosh", "sinh"]


@Atom(
    word="sinh",
    derivative=lambda x: cosh(x),
    value=mpmath.sinh,
    torch=lambda torch, x: torch.sinh(x),
    cpp="Math::sinh",
    steep=True,
    shape=Shape.GROWING,
)
class sinh(Pointwise):
    """(exp(x) - exp(-x)) / 2, exact near 0."""

    nargs = 1


@Atom(
    word="cosh",
    derivative=lambda x: sinh(x),
    value=mpmath.cosh,
    torch=lambda torch, x: torch.cosh(x),
    cpp="Math::cosh",
    steep=True,
    shape=Shape.VALLEY,
)
class cosh(Pointwise):
    """(exp(x) + exp(-x)) / 2."""

    nargs = 1


@Atom(
    word="asinh",
    derivative=lambda x: 1 / hypot(x, 1),
    value=mpmath.asinh,
    torch=lambda torch, x: torch.asinh(x),
    cpp="Math::asinh",
    shape=Shape.GROWING,
)
class asinh(Pointwise):
    """The number whose hyperbolic sine is x; its derivative, 1 / sqrt(1 + x^2), is right for large x too."""

    nargs = 1


def _over_legs(size: sp.Expr) -> sp.Expr:
    """1 / sqrt(x^2 - 1), of which nothing overflows, and which torch has for numbers below -1 too."""
    return rsqrt(size - 1) * rsqrt(size + 1)


@Atom(
    word="acosh",
    derivative=lambda x: _over_legs(absolute(x)),
    value=mpmath.acosh,
    torch=lambda torch, x: torch.acosh(x),
    cpp="Math::acosh",
    bounds=(0.0, math.inf),
    smooth=((1.0, math.inf),),
)
class acosh(Pointwise):
    """The number from 0 on whose hyperbolic cosine is x."""

    nargs = 1


@Atom(
    word="atanh",
    derivative=lambda x: atanh_slope(x),
    value=mpmath.atanh,
    torch=lambda torch, x: torch.atanh(x),
    cpp="Math::atanh",
    smooth=((-1.0, 1.0),),
)
class atanh(Pointwise):
    """The number whose hyperbolic tangent is x."""

    nargs = 1


@Atom(
    derivative=lambda x: 2 * x * atanh_slope(x) ** 2,
    value=lambda x: 1 / ((1 - x) * (1 + x)),
    torch=lambda torch, x: 1 / ((1 - x) * (1 + x)),
    cpp="T(1) / ((T(1) - {0}) * (T(1) + {0}))",
    calls=0,
    smooth=((-math.inf, -1.0), (-1.0, 1.0), (1.0, math.inf)),
    fitted=False,
)
class atanh_slope(Pointwise):
    """1 / ((1 - x) (1 + x)), the derivative of atanh, whose own derivative has no difference that cancels."""

    nargs = 1
