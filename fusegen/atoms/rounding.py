"""Functions that round to an integer: steps, whose derivative is 0, as torch has it."""

from __future__ import annotations

import functools

import mpmath
import sympy as sp

from fusegen.atoms.declare import Atom, Pointwise, Shape

__all__ = ["ceil", "floor", "round_half_even", "trunc"]

#: What the steps have in common.
_step = functools.partial(
    Atom,
    derivative=lambda x: sp.Integer(0),
    shape=Shape.GROWING,
    smooth=(),
    calls=0,
    fitted=False,
    exact=True,
)


@_step(
    word="floor",
    value=mpmath.floor,
    torch=lambda torch, x: torch.floor(x),
    cpp="Math::floor",
)
class floor(Pointwise):
    """The largest integer that is not above x."""

    nargs = 1


@_step(
    word="ceil",
    value=mpmath.ceil,
    torch=lambda torch, x: torch.ceil(x),
    cpp="Math::ceil",
)
class ceil(Pointwise):
    """The least integer that is not below x."""

    nargs = 1


@_step(
    word="round",
    value=mpmath.nint,
    torch=lambda torch, x: torch.round(x),
    cpp="Math::round_half_even",
)
class round_half_even(Pointwise):
    """The nearest integer; of two, the even one."""

    nargs = 1


@_step(
    word="trunc",
    value=lambda x: mpmath.floor(x) if x > 0 else mpmath.ceil(x),
    torch=lambda torch, x: torch.trunc(x),
    cpp="Math::trunc",
)
class trunc(Pointwise):
    """The integer part of x, rounded towards 0."""

    nargs = 1
