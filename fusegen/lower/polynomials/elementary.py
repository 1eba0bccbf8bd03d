"""The polynomials that `elementary.h` and what it includes use: one for each function and precision.

Each polynomial, with the few operations around it in C++, covers the whole range of its function.
Polynomials for a single spec's interval are fitted for that spec (`of_formulas.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mpmath

from fusegen.base import paths
from fusegen.lower.polynomials.fit import BUDGET, Polynomial, fit


@dataclass(frozen=True)
class Recipe:
    """A smooth function on an interval, from which a header builds one of its functions.

    Args:
        name: the name of the C++ function.
        formula: what it computes, in words.
        function: the same in mpmath.
        low, high: the interval.
        precisions: which of "single" and "brief" need it.
        budget: the largest absolute error, if that is what counts.
        exact: the first coefficients, if they are prescribed, so that results in which terms cancel are right
            too.
    """

    name: str
    formula: str
    function: Callable[[mpmath.mpf], mpmath.mpf]
    low: float
    high: float
    precisions: tuple[str, ...] = ("single", "brief")
    budget: float | None = None
    exact: tuple[float, ...] = ()


#: The slope k in u = 1 / (1 + k |x|), a variable in which the normal distribution's tail is smooth. At 0 an
#: ulp of u is 0.8 / k ulp of the tail; with a steeper slope the polynomial would need more terms.
TAIL_SLOPE = 0.375
#: From here on, the normal distribution's tail is 0 in float32.
TAIL_END = 15.0


def _over_x(function: Callable[[mpmath.mpf], mpmath.mpf]) -> Callable[[mpmath.mpf], mpmath.mpf]:
    """Return f(x) / x for a function with f(0) = 0 and slope 1 there."""
    return lambda x: function(x) / x if x else mpmath.mpf(1)


def _over_x_of_square(
    function: Callable[[mpmath.mpf], mpmath.mpf], slope: mpmath.mpf
) -> Callable[[mpmath.mpf], mpmath.mpf]:
    """Return f(x) / x as a function of s = x^2, for an odd function."""
    return lambda s: function(mpmath.sqrt(s)) / mpmath.sqrt(s) if s else slope


def _tanhshrink(s: mpmath.mpf) -> mpmath.mpf:
    """Return (x - tanh(x)) / x^3 as a function of s = x^2."""
    if s < mpmath.mpf(10) ** -16:
        return mpmath.mpf(1) / 3 - 2 * s / 15
    with mpmath.workdps(80):
        x = mpmath.sqrt(s)
        return (x - mpmath.tanh(x)) / x**3


def _tail(u: mpmath.mpf) -> mpmath.mpf:
    """Return normcdf(-x) exp(x^2 / 2) / u as a function of u = 1 / (1 + 3 x / 8)."""
    x = (1 / u - 1) / mpmath.mpf(TAIL_SLOPE)
    return mpmath.erfc(x / mpmath.sqrt(2)) / 2 * mpmath.exp(x * x / 2) / u


RECIPES = (
    Recipe("exp_fraction", "exp(s)", mpmath.exp, -0.34658, 0.34658, exact=(1.0, 1.0)),
    Recipe("expm1_ratio", "(exp(s) - 1) / s", _over_x(mpmath.expm1), -0.7, 0.7, exact=(1.0,)),
    Recipe("log1p_ratio", "log(1 + s) / s", _over_x(mpmath.log1p), 0.0, 1.0, exact=(1.0,)),
    Recipe(
        "log_ratio",
        "log(1 + s) / s, sqrt(1/2) <= 1 + s <= sqrt(2)",
        _over_x(mpmath.log1p),
        -0.2929,
        0.41422,
        ("single",),
        exact=(1.0, -0.5),
    ),
    Recipe(
        "sinh_ratio",
        "sinh(x) / x with s = x^2, |x| <= 1",
        _over_x_of_square(mpmath.sinh, mpmath.mpf(1)),
        0.0,
        1.0,
        ("single",),
        exact=(1.0,),
    ),
    Recipe(
        "tanh_ratio",
        "tanh(x) / x with s = x^2, |x| <= 0.55",
        _over_x_of_square(mpmath.tanh, mpmath.mpf(1)),
        0.0,
        0.3025,
        exact=(1.0,),
    ),
    Recipe("tanhshrink_ratio", "(x - tanh(x)) / x^3 with s = x^2, |x| <= 1", _tanhshrink, 0.0, 1.0),
    Recipe(
        "sech2_ratio",
        "4 / (1 + e)^2 with s = 1 - e",
        lambda s: 1 / (1 - s / 2) ** 2,
        0.0,
        1.0,
        ("brief",),
        exact=(1.0,),
    ),
    Recipe(
        "erf_ratio",
        "erf(x) / x with s = x^2, |x| <= 0.7",
        _over_x_of_square(mpmath.erf, 2 / mpmath.sqrt(mpmath.pi)),
        0.0,
        0.49,
    ),
    Recipe(
        "sin_ratio",
        "sin(x) / x with s = x^2, |x| <= pi / 4",
        _over_x_of_square(mpmath.sin, mpmath.mpf(1)),
        0.0,
        0.6169,
        ("single",),
        exact=(1.0,),
    ),
    Recipe(
        "cos_of_root",
        "cos(x) with s = x^2, |x| <= pi / 4",
        lambda s: mpmath.cos(mpmath.sqrt(s)),
        0.0,
        0.6169,
        ("single",),
        exact=(1.0,),
    ),
    Recipe(
        "tan_ratio",
        "tan(x) / x with s = x^2, |x| <= pi / 4",
        _over_x_of_square(mpmath.tan, mpmath.mpf(1)),
        0.0,
        0.6169,
        ("single",),
        exact=(1.0,),
    ),
    Recipe(
        "asin_ratio",
        "asin(x) / x with s = x^2, |x| <= 1/2",
        _over_x_of_square(mpmath.asin, mpmath.mpf(1)),
        0.0,
        0.25,
        ("single",),
        exact=(1.0,),
    ),
    Recipe(
        "atan_ratio",
        "atan(x) / x with s = x^2, |x| <= 1",
        _over_x_of_square(mpmath.atan, mpmath.mpf(1)),
        0.0,
        1.0,
        ("single",),
        exact=(1.0,),
    ),
    Recipe(
        "tail_ratio",
        f"normcdf(-x) exp(x^2 / 2) / s with s = 1 / (1 + 3 x / 8), 0 <= x <= {TAIL_END:g}",
        _tail,
        1 / (1 + TAIL_SLOPE * TAIL_END),
        1.0,
        ("single",),
    ),
    Recipe(
        "tail_log2",
        "log2(normcdf(-s)); beyond 5 it falls on",
        lambda x: mpmath.log(mpmath.erfc(x / mpmath.sqrt(2)) / 2, 2),
        0.0,
        5.0,
        ("brief",),
        2.6e-4,  # degree 5 has a negative last coefficient; degree 6 would rise again
        exact=(-1.0,),  # normcdf(0) is 1/2
    ),
)


def polynomial(recipe: Recipe, precision: str) -> Polynomial:
    """Return a recipe's polynomial in a precision ("single" or "brief")."""
    budget = BUDGET[precision] if recipe.budget is None else recipe.budget
    absolute = recipe.budget is not None
    found = fit(
        recipe.function, recipe.low, recipe.high, budget, 14, absolute=absolute, exact=recipe.exact
    )
    assert found is not None, f"no polynomial of degree 14 reaches {recipe.name}"
    return found


def header() -> str:
    """Return the text of fitted.h."""
    lines = [
        "// Polynomials that elementary.h builds on. Written by `python -m fusegen.tools.fitted_header`;",
        "// do not edit. Errors are relative, measured in float32 arithmetic with fused multiply-adds.",
        "#pragma once",
        "",
        '#include "fusegen/arithmetic.h"',
        "",
        "namespace fusegen::fitted {",
        "",
        "// What a result is rounded to: float32, or 16 bits.",
        "struct Single {};",
        "struct Brief {};",
    ]
    for recipe in RECIPES:
        lines += ["", f"// {recipe.formula}, for s from {recipe.low:.5g} to {recipe.high:.5g}."]
        for precision in recipe.precisions:
            found = polynomial(recipe, precision)
            lines += [
                f"// {precision}: {found.accuracy}.",
                f"FUSEGEN_FN float {recipe.name}({precision.capitalize()}, float s) {{",
                "  using T = float;",
                f"  return {found.horner('s')};",
                "}",
            ]
    return "\n".join([*lines, "", "}  // namespace fusegen::fitted", ""])


def path() -> Path:
    """Return the path of fitted.h."""
    return paths.include() / "fusegen" / "fitted.h"
