"""sympy's elementary functions, declared, and those that are exact near 0: expm1 and log1p."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import sympy as sp

from fusegen.atoms.declare import Atom, Cancels, Pointwise, Shape

__all__ = ["exp", "expm1", "log", "log1p", "rsqrt", "sqrt"]

exp, log, sqrt = sp.exp, sp.log, sp.sqrt


@Atom(
    word="log1p",
    derivative=lambda x: 1 / (1 + x),
    value=mpmath.log1p,
    torch=lambda torch, x: torch.log1p(x),
    cpp="Math::log1p",
    smooth=((-1.0, math.inf),),
)
class log1p(Pointwise):
    """log(1 + x), exact near 0."""

    nargs = 1


@Atom(
    word="expm1",
    derivative=lambda x: exp(x),
    value=mpmath.expm1,
    torch=lambda torch, x: torch.expm1(x),
    cpp="Math::expm1",
    steep=True,
    shape=Shape.GROWING,
)
class expm1(Pointwise):
    """exp(x) - 1, exact near 0."""

    nargs = 1


Atom(
    word="exp",
    value=mpmath.exp,
    torch=lambda torch, x: torch.exp(x),
    cpp="Math::exp",
    steep=True,
    shape=Shape.GROWING,
    cancels=Cancels(plus={-1: expm1}),
)(sp.exp)

Atom(
    word="log",
    value=mpmath.log,
    torch=lambda torch, x: torch.log(x),
    cpp="Math::log",
    smooth=((0.0, math.inf),),
    cancels=Cancels(after_one=log1p),
)(sp.log)

Atom(
    word="sin",
    value=mpmath.sin,
    torch=lambda torch, x: torch.sin(x),
    cpp="Math::sin",
    bounds=(-1.0, 1.0),
)(sp.sin)

Atom(
    word="cos",
    value=mpmath.cos,
    torch=lambda torch, x: torch.cos(x),
    cpp="Math::cos",
    bounds=(-1.0, 1.0),
)(sp.cos)


def rsqrt(value: Any) -> sp.Expr:
    """1 / sqrt(x)."""
    return sp.Pow(value, sp.Rational(-1, 2))
