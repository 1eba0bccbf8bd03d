"""The tangent, angles (the inverses of sine, cosine and tangent), and the hypotenuse of two sides.

1 - x^2 in a derivative is (1 - x) (1 + x), which has its digits near 1.
"""

from __future__ import annotations

import math

import mpmath
import sympy as sp

from fusegen.atoms.declare import Atom, Pointwise, Shape
from fusegen.atoms.elementary import rsqrt
from fusegen.atoms.special import where

__all__ = ["acos", "asin", "atan", "atan2", "hypot", "tan"]


@Atom(
    word="tan",
    derivative=lambda x: 1 + tan(x) ** 2,
    value=mpmath.tan,
    torch=lambda torch, x: torch.tan(x),
    cpp="Math::tan",
    smooth=(),
    fitted=False,
)
class tan(Pointwise):
    """The tangent."""

    nargs = 1


@Atom(
    word="asin",
    derivative=lambda x: rsqrt((1 - x) * (1 + x)),
    value=mpmath.asin,
    torch=lambda torch, x: torch.asin(x),
    cpp="Math::asin",
    bounds=(-math.pi / 2, math.pi / 2),
    smooth=((-1.0, 1.0),),
)
class asin(Pointwise):
    """The angle from -pi / 2 to pi / 2 whose sine is x."""

    nargs = 1


@Atom(
    word="acos",
    derivative=lambda x: -rsqrt((1 - x) * (1 + x)),
    value=mpmath.acos,
    torch=lambda torch, x: torch.acos(x),
    cpp="Math::acos",
    bounds=(0.0, math.pi),
    smooth=((-1.0, 1.0),),
)
class acos(Pointwise):
    """The angle from 0 to pi whose cosine is x."""

    nargs = 1


@Atom(
    word="atan",
    derivative=lambda x: 1 / (1 + x**2),
    value=mpmath.atan,
    torch=lambda torch, x: torch.atan(x),
    cpp="Math::atan",
    shape=Shape.GROWING,
)
class atan(Pointwise):
    """The angle whose tangent is x."""

    nargs = 1


def _over_square(of: sp.Expr, y: sp.Expr, x: sp.Expr) -> sp.Expr:
    """Return a coordinate over the squared distance from the origin, 0 there, as torch has it."""
    square = x**2 + y**2
    return where(sp.Eq(square, 0), 0, of / square)


@Atom(
    word="atan2",
    derivative=(lambda y, x: _over_square(x, y, x), lambda y, x: _over_square(-y, y, x)),
    value=mpmath.atan2,
    torch=lambda torch, y, x: torch.atan2(y, x),
    cpp="Math::atan2",
    bounds=(-math.pi, math.pi),
    smooth=(),
    fitted=False,
)
class atan2(Pointwise):
    """The angle of the point (x, y), given y first."""

    nargs = 2


@Atom(
    word="hypot",
    derivative=(lambda x, y: x / hypot(x, y), lambda x, y: y / hypot(x, y)),
    value=mpmath.hypot,
    torch=lambda torch, x, y: torch.hypot(x, y),
    cpp="Math::hypot",
    bounds=(0.0, math.inf),
    smooth=(),
    fitted=False,
)
class hypot(Pointwise):
    """sqrt(x^2 + y^2), whose squares do not overflow."""

    nargs = 2
