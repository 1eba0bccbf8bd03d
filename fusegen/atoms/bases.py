"""Exponentials and logarithms to base 2 and 10, exact at whole powers, and log(exp(x) + exp(y)), x log(y).

exp(x ln 2) would multiply the rounding of x ln 2, and log(x) / ln 2 is not 3 at 8.
"""

from __future__ import annotations

import math
from typing import Any

import mpmath
import sympy as sp

from fusegen.atoms.declare import Atom, Cancels, Pointwise, Shape
from fusegen.atoms.elementary import log, log1p
from fusegen.atoms.saturating import sigmoid
from fusegen.atoms.special import where

__all__ = ["exp2", "log2", "log10", "logaddexp", "xlogy"]

_LN2, _LN10 = sp.log(2), sp.log(10)


@Atom(
    word="exp2",
    derivative=lambda x: _LN2 * exp2(x),
    value=lambda x: mpmath.power(2, x),
    torch=lambda torch, x: torch.exp2(x),
    cpp="Math::exp2",
    steep=True,
    shape=Shape.GROWING,
)
class exp2(Pointwise):
    """2^x."""

    nargs = 1


@Atom(
    word="log2",
    derivative=lambda x: 1 / (_LN2 * x),
    value=lambda x: mpmath.log(x, 2),
    torch=lambda torch, x: torch.log2(x),
    cpp="Math::log2",
    smooth=((0.0, math.inf),),
    cancels=Cancels(after_one=lambda u: log1p(u) / _LN2),
)
class log2(Pointwise):
    """The logarithm to base 2."""

    nargs = 1


@Atom(
    word="log10",
    derivative=lambda x: 1 / (_LN10 * x),
    value=lambda x: mpmath.log(x, 10),
    torch=lambda torch, x: torch.log10(x),
    cpp="Math::log10",
    smooth=((0.0, math.inf),),
    cancels=Cancels(after_one=lambda u: log1p(u) / _LN10),
)
class log10(Pointwise):
    """The logarithm to base 10."""

    nargs = 1


@Atom(
    word="logaddexp",
    derivative=(lambda x, y: sigmoid(x - y), lambda x, y: sigmoid(y - x)),
    value=lambda x, y: x if x == y and mpmath.isinf(x) else _larger_and_rest(x, y),
    torch=lambda torch, x, y: torch.logaddexp(x, y),
    cpp="Math::logaddexp",
    smooth=(),
    fitted=False,
)
class logaddexp(Pointwise):
    """log(exp(x) + exp(y)) without overflow."""

    nargs = 2


def _larger_and_rest(x: Any, y: Any) -> Any:
    return max(x, y) + mpmath.log1p(mpmath.exp(-abs(x - y)))


@Atom(
    word="xlogy",
    derivative=(
        lambda x, y: where(sp.And(sp.Eq(x, 0), y <= 0), 0, log(y)),
        lambda x, y: x / y,
    ),
    value=lambda x, y: x * mpmath.log(y) if x else mpmath.mpf(0),
    torch=lambda torch, x, y: torch.xlogy(x, y),
    cpp="Math::xlogy",
    smooth=(),
    fitted=False,
)
class xlogy(Pointwise):
    """x log(y), and 0 where x is 0."""

    nargs = 2
