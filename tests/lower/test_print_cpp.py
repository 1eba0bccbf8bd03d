"""The printer's exact text, and what it says that the text reads and calls."""

from __future__ import annotations

import pytest
import sympy as sp

from fusegen.atoms import normcdf, rsqrt, sigmoid, where
from fusegen.lower import Code, Variable
from fusegen.lower.print_cpp import Printer

X, Y, Z = sp.symbols("x y z", real=True)
PRINTED = [
    (X + Y, "x + row.y"),
    (X - Y, "x - row.y"),
    (1 - X**2, "Math::fma(-x, x, T(1))"),
    (X * Y + 2, "Math::fma(x, row.y, T(2))"),
    (X - X * Y, "Math::fma(-x, row.y, x)"),
    (X**2 + Y**2, "Math::fma(row.y, row.y, x * x)"),
    (2 * X * Y - 3, "Math::fma(T(2) * x, row.y, -T(3))"),
    (1 - 2 * X * Y, "Math::fma(-T(2) * x, row.y, T(1))"),
    (X + X / Y, "x + Math::divide(x, row.y)"),
    (X * (1 - Y), "x * (T(1) - row.y)"),
    (X / Y, "Math::divide(x, row.y)"),
    (X / Y**2, "times_power<2>(x, Math::inverse(row.y))"),
    # A factor may be as large as the divisor: each is divided once before it meets the next.
    (X * Z / Y**2, "x * Math::inverse(row.y) * z * Math::inverse(row.y)"),
    (X * Z / Y**3, "times_power<2>(x * Math::inverse(row.y) * z, Math::inverse(row.y))"),
    (2 * X / Y**2, "times_power<2>(T(2) * x, Math::inverse(row.y))"),
    (X * Z * Y**2, "x * z * row.y * row.y"),
    (-X * Y, "-x * row.y"),
    (X**3, "power<3>(x)"),
    (sp.sqrt(X), "Math::sqrt(x)"),
    (rsqrt(X), "Math::rsqrt(x)"),
    (X ** sp.Rational(-3, 2), "power<3>(Math::rsqrt(x))"),
    (X**0.5, "Math::sqrt(x)"),
    (X**-0.5, "Math::rsqrt(x)"),
    (X**1.5, "Math::pow(x, T(1.5))"),
    (X ** sp.Rational(7, 3), "Math::pow(x, T(2.3333333333333335))"),
    (sp.sqrt(2) * X, "x * T(1.4142135623730951)"),
    (sp.Float("0.2", 17) * X, "x * T(0.2)"),
    (sp.Integer(10) ** 20 * X, "T(1e+20) * x"),
    (where(X <= 0, 0, X), "Math::where(x <= T(0), T(0), x)"),
    (where(sp.Eq(X, Y), 1, 0), "Math::where(x == row.y, T(1), T(0))"),
    (where(sp.And(X > 0, Y > 1), 1, X), "Math::where((x > T(0)) && (row.y > T(1)), T(1), x)"),
    (where(sp.Or(X > 0, Y > 1), 1, X), "Math::where((x > T(0)) || (row.y > T(1)), T(1), x)"),
    (X * normcdf(X) * sigmoid(Y), "x * Math::normcdf(x) * Math::sigmoid(row.y)"),
    (sp.exp(-X), "Math::exp(-x)"),
    # A sum is rounded, and an exponential multiplies its rounding.
    (sp.exp(X - Y), "Math::OfSum::exp(x - row.y)"),
    (sigmoid(X + Y), "Math::OfSum::sigmoid(x + row.y)"),
    (normcdf(X * Y + 1), "Math::OfSum::normcdf(Math::fma(x, row.y, T(1)))"),
    (sp.exp(2 * X), "Math::exp(T(2) * x)"),
    (sp.sqrt(X + Y), "Math::sqrt(x + row.y)"),
]


def print_cpp(expr: sp.Expr) -> Code:
    return Printer(
        {X: Variable("x"), Y: Variable("y", "row"), Z: Variable("z")},
        lambda factor: int(bool(factor.free_symbols)),
    )(expr)


@pytest.mark.parametrize(("expr", "code"), PRINTED, ids=[code for _, code in PRINTED])
def test_the_printer_writes(expr: sp.Expr, code: str) -> None:
    assert print_cpp(expr).text == code


def test_the_printer_says_what_code_reads_and_calls() -> None:
    code = print_cpp(X * normcdf(X) + Y * sigmoid(X))
    assert code.reads == {Variable("x"), Variable("y", "row")}
    assert code.calls == 2  # the fused product and sum is one instruction


def test_the_printer_remembers_what_stands_for_a_sum() -> None:
    total, product = sp.symbols("total product", real=True)
    names = {X: "x", Y: "y", total: "total", product: "product"}
    printer = Printer({symbol: Variable(name) for symbol, name in names.items()}, lambda _: 1)
    printer(X + Y, total)
    printer(X * Y, product)
    assert printer(sp.exp(total)).text == "Math::OfSum::exp(total)"
    assert printer(sp.exp(-total)).text == "Math::OfSum::exp(-total)"
    assert printer(sp.exp(product)).text == "Math::exp(product)"


def test_of_a_row_among_several_only_its_own_variables_are_renamed() -> None:
    assert str(Variable("m", "row").among("row", "row[v]")) == "row[v].m"
    assert str(Variable("row").among("row", "row[v]")) == "row"
    assert str(Variable("m", "col").among("row", "row[v]")) == "col.m"


def test_the_printer_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="gamma"):
        print_cpp(sp.gamma(X))
