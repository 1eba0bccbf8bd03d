"""Formulas that see a short interval alone become polynomials, fitted for that interval.

gelu after tanh sees [-1, 1]: there x normcdf(x) is x (1/2 + x p(x^2)) with a p of a few terms. In float64
the formula stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import mpmath
import sympy as sp

from fusegen.atoms import ATOMS
from fusegen.atoms.values import compiled
from fusegen.base.activity import doing
from fusegen.lower.polynomials.fit import BUDGET, Polynomial, fit, parity, single
from fusegen.program import Kind, Map, Program, Value
from fusegen.program.ranges import Interval, interval, ranges

#: The longest interval, and the highest degrees, at which a polynomial beats the function.
_WIDEST = 16.0
_MOST = {"single": 9, "brief": 6}

#: How many formulas of a kernel are fitted: each takes a third of a second.
_MOST_FITTED = 12

#: The variable of a formula that is fitted.
_X = sp.Symbol("x", real=True)

Function = Callable[[mpmath.mpf], mpmath.mpf]


class Fitted(sp.Function):
    """Call of the n-th fitted formula of a kernel: `Fitted(n, x)`."""

    nargs = 2
    is_real = True


@dataclass(frozen=True)
class FittedFormula:
    """A formula of one variable, and the polynomials that stand for it on an interval.

    The formula is `base + x^lift * p(s)`, where s is x^2 (`squared`) or x, or with a second step
    `x * (slope + x p(x^2))`.

    Args:
        name: what the C++ function is called.
        expr, symbol: the formula and its variable.
        reach: where it holds.
        outside: the code around the polynomial, where `{p}` stands for it.
        squared: whether the polynomial's variable is x^2.
        polynomials: by precision, "single" and "brief".
    """

    name: str
    expr: sp.Expr
    symbol: sp.Symbol
    reach: Interval
    outside: str
    squared: bool
    polynomials: Mapping[str, Polynomial]


def fit_formulas(program: Program) -> dict[Value, FittedFormula]:
    """Return the fitted formula of each node of a program that has one."""
    found = ranges(program)
    costly = [function for function, atom in ATOMS.items() if atom.fitted]
    fitted: dict[Value, FittedFormula] = {}
    for value in program.nodes():
        if not isinstance(value, Map) or value.kind != Kind.FULL or len(value.args) != 1:
            continue
        if len(fitted) == _MOST_FITTED:
            break
        (arg,) = value.args
        if not found[arg].bounded or not value.expr.has(*costly):
            continue
        reach = _widened(found[arg])
        if 0 < reach.high - reach.low <= _WIDEST and _smooth(value.expr, {arg.symbol: reach}):
            doing(f"fitting a polynomial for {value.name}")
            made = _fit(value.expr.xreplace({arg.symbol: _X}), reach)
            if made is not None:
                outside, squared, polynomials = made
                fitted[value] = FittedFormula(
                    f"{value.name}_fitted",
                    value.expr,
                    arg.symbol,
                    reach,
                    outside,
                    squared,
                    polynomials,
                )
    return fitted


def _widened(reach: Interval) -> Interval:
    """Return an interval with ends of four bits around another one, so that like formulas share a fit."""

    def outward(end: float, up: bool) -> float:
        mantissa, exponent = math.frexp(end)
        return math.ldexp((math.ceil if up else math.floor)(mantissa * 16) / 16, exponent)

    return Interval(outward(reach.low, False), outward(reach.high, True))


@lru_cache(maxsize=1024)
def _fit(expr: sp.Expr, reach: Interval) -> tuple[str, bool, Mapping[str, Polynomial]] | None:
    """Return the polynomials of a formula over `_X`, the code around them, and whether they are of x^2."""
    function = compiled(expr, _X)
    low, high = reach.low, reach.high
    outside, core = "{p}", function
    if low <= 0 <= high:
        outside, core = _split(function, low, high)
    squared = outside != "{p}" and parity(core, low, high) == "even"
    if squared:
        whole = core
        core = lambda s: whole(mpmath.sqrt(s))  # noqa: E731
        low, high = 0.0, max(low * low, high * high)
    exact = _exact(core) if low <= 0 <= high else ()
    polynomials = {}
    for precision, budget in BUDGET.items():
        polynomial = fit(core, low, high, budget, _MOST[precision], exact=exact)
        # A number is no function: a NaN would not pass through it.
        if polynomial is None or (polynomial.degree == 0 and "x" not in outside):
            return None
        polynomials[precision] = polynomial
    return outside, squared, polynomials


def _exact(core: Function) -> tuple[float, ...]:
    """Return a polynomial's constant where that is a float32 number, so that it is not fitted.

    exp(x) - 1 and x - tanh(x) are nothing but the rest of the polynomial near 0.
    """
    with mpmath.workdps(_DIGITS):
        value = core(mpmath.mpf(0))
        constant = single(float(value))
        return (constant,) if abs(value - constant) < _NOTHING else ()


def _split(function: Function, low: float, high: float) -> tuple[str, Function]:
    """Return the code around a polynomial and the function that it is to be, for an interval with 0 in it.

    Powers of x are taken out until what remains is not 0 at 0; if all but its constant is odd, the constant
    and one more x are taken out, so that an even function remains.
    """
    outside, core = "{p}", function
    zero = mpmath.mpf(0)
    with mpmath.workdps(_DIGITS):
        for _ in range(3):
            if abs(core(zero)) < _NOTHING:
                outside = outside.format(p="x * {p}")
                core = _divided(core, zero, mpmath.mpf(10) ** -30)
        constant = core(zero)
        if abs(constant) > _NOTHING and parity(core, low, high) == "odd":
            inner = f"Math::fma(x, {{p}}, T({float(constant)!r}))"
            return outside.format(p=inner), _divided(core, constant, mpmath.mpf(10) ** -10)
        if outside == "{p}" and parity(core, low, high) == "even":
            return "({p})", core
    return outside, core


_NOTHING = mpmath.mpf(10) ** -25
#: Enough to divide by x = 1e-30 up to four times.
_DIGITS = 180


def _divided(function: Function, constant: mpmath.mpf, least: mpmath.mpf) -> Function:
    """Return (f(x) - constant) / x, nearer to 0 than `least` its value there."""

    def ratio(x: mpmath.mpf) -> mpmath.mpf:
        with mpmath.workdps(_DIGITS):
            at = x if abs(x) > least else least
            return (function(at) - constant) / at

    return ratio


def _smooth(expr: sp.Basic, known: Mapping[sp.Symbol, Interval]) -> bool:
    """Whether an expression has all derivatives where its symbols are inside of their intervals.

    A polynomial approximates nothing else: no kink, no pole, no root of 0, no logarithm of 0.
    """
    for part in sp.preorder_traversal(expr):
        if isinstance(part, sp.Piecewise):
            return False
        if part.func in ATOMS:
            inner = interval(part.args[0], known)
            if not any(_inside(inner, low, high) for low, high in ATOMS[part.func].smooth):
                return False
        if part.is_Pow and not (part.exp.is_Integer and part.exp >= 0):
            inner = interval(part.base, known)
            if inner.low <= 0 and not (part.exp.is_Integer and inner.high < 0):
                return False
    return True


def _inside(reach: Interval, low: float, high: float) -> bool:
    """Whether an interval is inside of an open one, of which infinity is no end."""
    return (low < reach.low or low == -math.inf) and (reach.high < high or high == math.inf)
