"""Functions that saturate: tanh, sigmoid, what belongs to them, and the normal distribution's.

Each has its own form for the small rest in its tails: 1 - sigmoid(x) is sigmoid(-x), where it is exact.
"""

from __future__ import annotations

import math
from typing import Any

import mpmath
import sympy as sp

from fusegen.atoms.declare import ATOMS, Atom, Cancels, Pointwise, Shape

__all__ = [
    "erf",
    "erfc",
    "normcdf",
    "normpdf",
    "sech2",
    "sigmoid",
    "softplus",
    "tanh",
    "tanh_softplus",
    "tanh_softplus_slope",
    "tanhshrink",
]

erf = sp.erf
_HALF = sp.Rational(1, 2)
_ROOT = sp.sqrt(2)


@Atom(
    word="sigmoid",
    derivative=lambda x: sigmoid(x) * sigmoid(-x),
    value=lambda x: 1 / (1 + mpmath.exp(-x)),
    torch=lambda torch, x: torch.sigmoid(x),
    cpp="Math::sigmoid",
    steep=True,
    shape=Shape.GROWING,
    cancels=Cancels(
        plus={-1: lambda u: -sigmoid(-u), -_HALF: lambda u: tanh(u / 2) / 2},
        mirrored=lambda u: tanh(u / 2),
    ),
)
class sigmoid(Pointwise):
    """s(x) = 1 / (1 + exp(-x)); its derivative is s(x) s(-x), where 1 - s(x) would cancel for large x."""

    nargs = 1


@Atom(
    word="tanh",
    derivative=lambda x: sech2(x),
    value=mpmath.tanh,
    torch=lambda torch, x: torch.tanh(x),
    cpp="Math::tanh",
    shape=Shape.GROWING,
    cancels=Cancels(
        plus={-1: lambda u: -2 * sigmoid(-2 * u), 1: lambda u: 2 * sigmoid(2 * u)},
        less_argument=lambda u: -tanhshrink(u),
        square_less_one=lambda u: -sech2(u),
    ),
    composed=lambda u: tanh_softplus(*u.args) if isinstance(u, softplus) else None,
)
class tanh(Pointwise):
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)); its derivative is `sech2`."""

    nargs = 1


@Atom(
    word="sech2",
    derivative=lambda x: -2 * tanh(x) * sech2(x),
    value=lambda x: mpmath.sech(x) ** 2,
    torch=lambda torch, x: 1 / torch.cosh(x).square(),
    cpp="Math::sech2",
    steep=True,
    shape=Shape.BELL,
    cancels=Cancels(plus={-1: lambda u: -(tanh(u) ** 2)}),
)
class sech2(Pointwise):
    """1 / cosh(x)^2, which 1 - tanh(x)^2 loses to cancellation; its derivative is -2 tanh(x) sech2(x)."""

    nargs = 1


def _precise_tanhshrink(torch: Any, x: Any) -> Any:
    """Return x - tanh(x), below 1 by the series of x cosh(x) - sinh(x), which does not cancel near 0."""
    square = x * x
    series = torch.ones_like(x)
    for k in range(9, 1, -1):  # terms 2k x^(2k + 1) / (2k + 1)!, of one sign
        series = 1 + square * series / ((2 * k - 2) * (2 * k + 1))
    return torch.where(x.abs() < 1, x * square * series / (3 * torch.cosh(x)), x - torch.tanh(x))


@Atom(
    derivative=lambda x: tanh(x) ** 2,
    value=lambda x: x - mpmath.tanh(x),
    torch=lambda torch, x: x - torch.tanh(x),
    precise=_precise_tanhshrink,
    cpp="Math::tanhshrink",
    shape=Shape.GROWING,
)
class tanhshrink(Pointwise):
    """x - tanh(x), which keeps its digits where the two are nearly equal; its derivative is tanh(x)^2."""

    nargs = 1


@Atom(
    word="softplus",
    derivative=lambda x: sigmoid(x),
    value=lambda x: max(x, mpmath.mpf(0)) + mpmath.log1p(mpmath.exp(-abs(x))),
    torch=lambda torch, x: torch.logaddexp(x, torch.zeros_like(x)),
    cpp="Math::softplus",
    steep=True,
    shape=Shape.GROWING,
    cancels=Cancels(mirrored=lambda u: u),
)
class softplus(Pointwise):
    """log(1 + exp(x)) without overflow; softplus' = sigmoid."""

    nargs = 1


@Atom(
    derivative=lambda x: tanh_softplus_slope(x),
    value=lambda x: mpmath.tanh(ATOMS[softplus].value(x)),
    torch=lambda torch, x: torch.tanh(torch.logaddexp(x, torch.zeros_like(x))),
    cpp="Math::tanh_softplus",
    steep=True,
    shape=Shape.GROWING,
    cancels=Cancels(
        plus={
            -1: lambda u: -2 * sigmoid(-2 * softplus(u)),
            1: lambda u: 2 * sigmoid(2 * softplus(u)),
        },
        square_less_one=lambda u: -sech2(softplus(u)),
    ),
)
class tanh_softplus(Pointwise):
    """tanh(softplus(x)), mish's gate: (w^2 + 2 w) / (w^2 + 2 w + 2) with w = exp(x)."""

    nargs = 1


@Atom(
    derivative=lambda x: tanh_softplus_slope(x) * (sigmoid(-x) - 2 * tanh_softplus(x) * sigmoid(x)),
    value=lambda x: mpmath.sech(ATOMS[softplus].value(x)) ** 2 * ATOMS[sigmoid].value(x),
    torch=lambda torch, x: (
        torch.sigmoid(x) / torch.cosh(torch.logaddexp(x, torch.zeros_like(x))).square()
    ),
    cpp="Math::tanh_softplus_slope",
    steep=True,
    bounds=(0.0, 0.33),
)
class tanh_softplus_slope(Pointwise):
    """The derivative of tanh(softplus(x)), 4 w (1 + w) / (w^2 + 2 w + 2)^2 with w = exp(x)."""

    nargs = 1


@Atom(
    word="normcdf",
    derivative=lambda x: normpdf(x),
    value=mpmath.ncdf,
    torch=lambda torch, x: torch.special.ndtr(x),
    # ndtr loses two digits near -3.7.
    precise=lambda torch, x: torch.special.erfc(-x / math.sqrt(2)) / 2,
    cpp="Math::normcdf",
    steep=True,
    shape=Shape.GROWING,
    cancels=Cancels(
        plus={-1: lambda u: -normcdf(-u), -_HALF: lambda u: erf(u / _ROOT) / 2},
        mirrored=lambda u: erf(u / _ROOT),
    ),
)
class normcdf(Pointwise):
    """The standard normal's distribution function, (1 + erf(x / sqrt 2)) / 2; its derivative is `normpdf`."""

    nargs = 1


@Atom(
    word="normpdf",
    derivative=lambda x: -x * normpdf(x),
    value=mpmath.npdf,
    torch=lambda torch, x: torch.exp(-0.5 * x * x) * 0.3989422804014327,
    cpp="Math::normpdf",
    steep=True,
    shape=Shape.BELL,
)
class normpdf(Pointwise):
    """The standard normal's density, exp(-x^2 / 2) / sqrt(2 pi); its derivative is -x normpdf(x)."""

    nargs = 1


Atom(
    word="erf",
    value=mpmath.erf,
    torch=lambda torch, x: torch.erf(x),
    cpp="Math::erf",
    shape=Shape.GROWING,
    cancels=Cancels(
        plus={
            -1: lambda u: -2 * normcdf(-_ROOT * u),
            1: lambda u: 2 * normcdf(_ROOT * u),
        }
    ),
)(sp.erf)


@Atom(
    word="erfc",
    derivative=lambda x: -2 / sp.sqrt(sp.pi) * sp.exp(-(x**2)),
    value=mpmath.erfc,
    torch=lambda torch, x: torch.erfc(x),
    cpp="Math::erfc",
    steep=True,
    shape=Shape.FALLING,
    cancels=Cancels(plus={-1: lambda u: -erf(u)}),
)
class erfc(Pointwise):
    """1 - erf(x), which keeps its digits where erf is near 1."""

    nargs = 1
