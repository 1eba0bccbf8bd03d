"""Interval arithmetic: intervals hold every value, and what cannot act disappears."""

from __future__ import annotations

import math

import mpmath
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from shared.small_programs import X, program_of_steps

from fusegen import atoms
from fusegen.atoms import absolute, normcdf, sech2, sigmoid, softplus, tanh, where
from fusegen.lower.polynomials.of_formulas import fit_formulas
from fusegen.ops import call, find
from fusegen.program import Map
from fusegen.program.ranges import ALL, Interval, interval, never, simplify

FORMULAS = [
    X + 1,
    3 - 2 * X,
    X**2,
    X**3,
    1 / (1 + X**2),
    X * normcdf(X),
    tanh(X) * sigmoid(X),
    softplus(-X),
    sech2(X),
    absolute(X) - X,
    (absolute(X) + 0.25) ** 1.5,
    (absolute(X) / 3 + 0.5) ** -0.75,
    sp.exp(-(X**2)),
    sp.sin(X) * X,
    atoms.normpdf(X),
    atoms.expm1(X),
    sp.erf(X),
    where(X <= 0, X / 2, X**2),
    where(X < -1, -1, where(X > 1, 1, X)),
]


def truth(formula: sp.Expr, x: float) -> float:
    """The formula in mpmath, through sympy's own functions."""
    plain = {
        normcdf: lambda a: (1 + sp.erf(a / sp.sqrt(2))) / 2,
        atoms.normpdf: lambda a: sp.exp(-(a**2) / 2) / sp.sqrt(2 * sp.pi),
        tanh: sp.tanh,
        sigmoid: lambda a: 1 / (1 + sp.exp(-a)),
        softplus: lambda a: sp.log(1 + sp.exp(a)),
        sech2: lambda a: sp.sech(a) ** 2,
        absolute: sp.Abs,
        atoms.expm1: lambda a: sp.exp(a) - 1,
    }
    at = formula.xreplace({X: sp.Float(x, 40)})
    for atom, meaning in plain.items():
        at = at.replace(atom, meaning)
    return float(at.evalf(30))


@given(
    formula=st.sampled_from(FORMULAS),
    ends=st.tuples(st.floats(-20, 20), st.floats(-20, 20)).map(sorted),
    share=st.floats(0, 1),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_an_interval_holds_every_value(formula: sp.Expr, ends: list[float], share: float) -> None:
    low, high = ends
    x = min(max(low + share * (high - low), low), high)
    found = interval(formula, {X: Interval(low, high)})
    value = truth(formula, x)
    slack = 1e-12 * max(1.0, abs(value))
    assert found.low - slack <= value <= found.high + slack


def test_ends_are_sharp_where_the_function_grows() -> None:
    found = interval(tanh(X), {X: ALL})
    assert (found.low, found.high) == (-1.0, 1.0)
    found = interval(sigmoid(X), {X: Interval(-math.inf, 0.0)})
    assert (found.low, found.high) == (0.0, 0.5)
    assert interval(1 / X, {X: Interval(-1.0, 1.0)}) == ALL


def test_an_even_power_of_an_interval_around_0_begins_at_0() -> None:
    assert interval(X**2, {X: Interval(-3.0, 2.0)}) == Interval(0.0, 9.0)
    assert interval(X**4, {X: Interval(-1.0, 2.0)}) == Interval(0.0, 16.0)
    assert interval(X**3, {X: Interval(-3.0, 2.0)}) == Interval(-27.0, 8.0)


def test_what_an_interval_does_not_know_may_be_anything() -> None:
    assert interval(sp.Function("f")(X), {X: Interval(0.0, 1.0)}) == ALL


def test_a_condition_at_its_very_end_is_not_settled() -> None:
    """A computed value may overstep its interval by a rounding error."""
    known = {X: Interval(0.0, 1.0)}
    assert not never(X > 1, known)
    assert never(X > 1.01, known)
    assert never(X < -0.01, known)
    assert not never(sp.Eq(X, 0.5), known)


def test_hardtanh_after_gelu_of_tanh_disappears_and_says_so() -> None:
    def step(op: str, **attributes: float) -> sp.Expr:
        return call(find(op), X, {}, {k: sp.Float(v) for k, v in attributes.items()})

    wide = step("hardtanh", min_val=-1.0, max_val=1.0)
    tight = step("hardtanh", min_val=-0.1, max_val=0.5)
    gelu = step("gelu")
    simplified = simplify(program_of_steps(tanh(X), gelu, wide))
    assert not any(isinstance(v, Map) and v.expr.has(sp.Piecewise) for v in simplified.nodes())
    assert any("is the identity here" in note for note in simplified.notes)
    kept = simplify(program_of_steps(tanh(X), gelu, tight))
    assert any(isinstance(v, Map) and v.expr.has(sp.Piecewise) for v in kept.nodes())
    alone = simplify(program_of_steps(wide))
    assert any(isinstance(v, Map) and v.expr.has(sp.Piecewise) for v in alone.nodes())


def test_gelu_after_tanh_becomes_a_polynomial_and_gelu_alone_does_not() -> None:
    gelu = X * normcdf(X)
    program = program_of_steps(tanh(X), gelu)
    (fitted,) = fit_formulas(program).values()
    assert (fitted.reach.low, fitted.reach.high) == (-1.0, 1.0)
    assert not fit_formulas(program_of_steps(gelu))
    single, brief = fitted.polynomials["single"], fitted.polynomials["brief"]
    assert single.degree > brief.degree


def test_a_formula_that_is_a_number_there_gets_no_polynomial() -> None:
    """A NaN would not pass through it: torch's sign of NaN is 0."""
    positive = sigmoid(X) + sp.Rational(1, 10)
    assert not fit_formulas(program_of_steps(positive, atoms.sign(atoms.asinh(X))))


def _fma(a: float, b: float, c: float) -> float:
    return a * b + c


def _polynomial(x: float, *coefficients: float) -> float:
    value = 0.0
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value


@pytest.mark.parametrize("x", [-1.0, -0.3, -1e-6, 0.0, 1e-20, 0.7, 1.0])
def test_a_fitted_formula_is_the_formula(x: float) -> None:
    """x (1/2 + x p(x^2)), read from the very code that is generated."""
    (fitted,) = fit_formulas(program_of_steps(tanh(X), X * normcdf(X))).values()
    polynomial = fitted.polynomials["single"]
    s = x * x if fitted.squared else x
    code = fitted.outside.format(p=polynomial.horner("s"))
    code = code.replace("Math::", "").replace("T(", "Float(")
    value = float(sp.sympify(code, locals={"x": x, "s": s, "fma": _fma, "polynomial": _polynomial}))
    wanted = float(x * mpmath.ncdf(x))
    assert abs(value - wanted) <= 2.0**-23 * abs(wanted)
