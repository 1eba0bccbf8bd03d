"""The absolute value, the sign, and softsign, which is made of it."""

from __future__ import annotations

import math

import mpmath
import sympy as sp

from fusegen.atoms.declare import Atom, Pointwise, Shape

__all__ = ["absolute", "sign", "softsign"]

_BESIDE_0 = ((-math.inf, 0.0), (0.0, math.inf))


@Atom(
    word="sign",
    derivative=lambda x: sp.Integer(0),
    value=mpmath.sign,
    torch=lambda torch, x: torch.sign(x),
    cpp="Math::sign",
    bounds=(-1.0, 1.0),
    smooth=_BESIDE_0,
    fitted=False,
    exact=True,
)
class sign(Pointwise):
    """-1, 0 or 1; its derivative is 0, as torch has it."""

    nargs = 1


@Atom(
    word="abs",
    derivative=lambda x: sign(x),
    value=abs,
    torch=lambda torch, x: torch.abs(x),
    cpp="Math::absolute",
    shape=Shape.VALLEY,
    smooth=_BESIDE_0,
    fitted=False,
    exact=True,
)
class absolute(Pointwise):
    """|x|; its derivative is `sign`, so 0 at 0, as torch has it."""

    nargs = 1


@Atom(
    derivative=lambda x: (1 + absolute(x)) ** -2,
    value=lambda x: 1 / (1 / x + mpmath.sign(x)) if x else x,
    torch=lambda torch, x: torch.nn.functional.softsign(x),
    cpp="Math::softsign",
    shape=Shape.GROWING,
    smooth=_BESIDE_0,
    fitted=False,
)
class softsign(Pointwise):
    """x / (1 + |x|); its derivative is 1 / (1 + |x|)^2, of which the quotient's rule is a difference."""

    nargs = 1
