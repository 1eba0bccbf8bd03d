"""The functions that formulas are made of, beyond those of sympy.

Each stays opaque: sympy never expands it, and its derivative is stated in terms of atoms
(`tanh' = sech2`), so that a derivative shares the forward's values and never becomes
`inf / inf`. An atom is a function of one value (pointwise), of a whole row (`row_*`), or of
nothing (`uniform`).
"""

from __future__ import annotations

import math
from typing import Any

import sympy as sp

exp, log, erf, sqrt = sp.exp, sp.log, sp.erf, sp.sqrt

#: The number of columns of the activation, as a symbol: what `row_mean` divides by.
COLS = sp.Symbol("cols", integer=True, positive=True)
#: The number of rows of the activation.
ROWS = sp.Symbol("rows", integer=True, positive=True)
#: How many of them a `SampleSum` adds up.
SAMPLE = sp.Symbol("sample", integer=True, positive=True)
#: The number of the element's column, from 0.
COLUMN = sp.Symbol("column", integer=True, nonnegative=True)


class sigmoid(sp.Function):
    """s(x) = 1 / (1 + exp(-x)); its derivative is s(x) s(-x), where 1 - s(x) would cancel for large x."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return self * sigmoid(-self.args[0])


class tanh(sp.Function):
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)); its derivative is `sech2`."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sech2(self.args[0])


class sech2(sp.Function):
    """1 / cosh(x)^2, which 1 - tanh(x)^2 loses to cancellation; its derivative is -2 tanh(x) sech2(x)."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return -2 * tanh(self.args[0]) * self


class tanhshrink(sp.Function):
    """x - tanh(x), which keeps its digits where the two are nearly equal; its derivative is tanh(x)^2."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return tanh(self.args[0]) ** 2


class softsign(sp.Function):
    """x / (1 + |x|); its derivative is 1 / (1 + |x|)^2, of which the quotient's rule is a difference."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return (1 + absolute(self.args[0])) ** -2


class softplus(sp.Function):
    """log(1 + exp(x)) without overflow; softplus' = sigmoid."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sigmoid(self.args[0])


class normcdf(sp.Function):
    """The standard normal's distribution function, (1 + erf(x / sqrt 2)) / 2; its derivative is `normpdf`."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return normpdf(self.args[0])


class normpdf(sp.Function):
    """The standard normal's density, exp(-x^2 / 2) / sqrt(2 pi); its derivative is -x normpdf(x)."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return -self.args[0] * self


class log1p(sp.Function):
    """log(1 + x), exact near 0."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return 1 / (1 + self.args[0])


class expm1(sp.Function):
    """exp(x) - 1, exact near 0."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return exp(self.args[0])


class sign(sp.Function):
    """-1, 0 or 1; its derivative is 0, as torch has it."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sp.Integer(0)


class absolute(sp.Function):
    """|x|; its derivative is `sign`, so 0 at 0, as torch has it."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sign(self.args[0])


#: How near to 0 the base of a power with exponent 0 counts as 0: x**-3 is still finite in float32 there.
_NEAR = sp.Float(1e-12)


class power(sp.Function):
    """x to an exponent that is not known beforehand; torch's derivatives, also at x = 0.

    sympy's own power has the derivative `exponent * x**exponent / x` then, which is NaN at 0.
    """

    nargs = 2
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        base, exponent = self.args
        if argindex == 2:
            # Where there is no derivative it is a constant, so that nothing of it reaches the next
            # derivative by the base, which there is.
            at_zero = where(exponent >= 0, 0, minus_infinity)
            elsewhere = where(sp.Eq(base, 0), at_zero, undefined)
            return where(base > 0, self * log(base), elsewhere)
        slope = exponent * power(base, exponent - 1)
        # At exponent 0 the slope is 0 * x**-1, which is 0 and has the right derivative by the exponent.
        # So near to 0 that x**-1 or its derivatives overflow it would be NaN.
        near = where(sp.Eq(exponent, 0), 0, slope)
        return where(absolute(base) > _NEAR, slope, near)


class Draw(sp.Function):
    """A uniform number in [0, 1) for each element; the argument tells the draws of one chain apart."""

    nargs = 1
    is_real = True


class _Reduction(sp.Function):
    """A function of a whole row. The program turns it into a node; it is never differentiated here."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        raise TypeError(
            f"{self.func.__name__} is differentiated by the program's calculus, not by sympy"
        )


class RowSum(_Reduction):
    """The sum over a row's columns."""


class RowMax(_Reduction):
    """The largest value of a row; its gradient goes to the largest elements, shared evenly (torch.amax)."""


class RowShift(_Reduction):
    """A row's largest value where the result does not depend on it: it only guards exp from overflow,
    and no gradient runs through it."""


class RowTake(_Reduction):
    """A row's element in the column that the second argument names: an operand with an int64 number for each
    row. Where that is no column, it is the row's first element, which must then go unused."""

    nargs = 2


class ColumnSum(_Reduction):
    """The sum over a column's rows."""


class SampleSum(_Reduction):
    """The sum over the first rows of a column, a sixteenth of them (at least one), where the result does not
    depend on it: it only keeps squares small, and no gradient runs through it."""


class Total(_Reduction):
    """The sum over all elements, or over all rows of what does not vary along a row."""


class Special(sp.Function):
    """A number that is no real one: `infinity`, `minus_infinity` or `undefined`."""

    nargs = 1
    is_real = True

    def _sympystr(self, printer: Any) -> str:
        return {1: "infinity", -1: "-infinity", 0: "nan"}[int(self.args[0])]

    @property
    def value(self) -> float:
        return {1: math.inf, -1: -math.inf, 0: math.nan}[int(self.args[0])]


class Quoted(sp.AtomicExpr):
    """An expression that sympy does not look into: it would fold a Piecewise inside into the
    conditions around it."""

    __slots__ = ("expr",)
    is_real = True

    def __new__(cls, expr: sp.Expr) -> Quoted:
        made = super().__new__(cls)
        made.expr = expr
        return made  # type: ignore[no-any-return]

    @property
    def inside(self) -> tuple[sp.Expr]:
        return (self.expr,)

    @property
    def free_symbols(self) -> set[sp.Symbol]:
        return self.expr.free_symbols  # type: ignore[no-any-return]

    def _hashable_content(self) -> tuple[sp.Expr]:
        return (self.expr,)

    def _xreplace(self, rule: Any) -> tuple[sp.Basic, bool]:
        expr, changed = self.expr._xreplace(rule)
        return (Quoted(expr), True) if changed else (self, False)

    def _sympystr(self, printer: Any) -> str:
        return str(printer._print(self.expr))


class Let(sp.Function):
    """A part of a formula with a name of its own: it becomes a node, so that its terms keep their
    association and everything that uses it shares it."""

    nargs = 2
    is_real = True

    @property
    def value(self) -> sp.Expr:
        return self.args[1].expr


def let(name: str, value: Any) -> sp.Expr:
    """Give a part of a formula a name: `let("centred", x - row_mean(x))`."""
    return Let(sp.Symbol(name), Quoted(sp.sympify(value)))


row_sum, row_max, row_shift, row_take, total = RowSum, RowMax, RowShift, RowTake, Total
column_sum, sample_sum = ColumnSum, SampleSum

infinity = Special(sp.Integer(1))
minus_infinity = Special(sp.Integer(-1))
#: NaN: what a result is that has no value.
undefined = Special(sp.Integer(0))

#: The functions of a whole row.
ROW_FUNCTIONS = (RowSum, RowMax, RowShift, RowTake)


def row_mean(value: Any) -> sp.Expr:
    """The mean over a row's columns."""
    return RowSum(value) / COLS


def uniform(stream: int = 0) -> sp.Expr:
    """A fresh uniform number in [0, 1) for each element."""
    return Draw(sp.Integer(stream))


def where(condition: Any, value: Any, other: Any) -> sp.Expr:
    """`value` where the condition holds, else `other` (also where a NaN makes the condition false)."""
    return sp.Piecewise((value, condition), (other, True))


def raised(base: Any, exponent: Any) -> sp.Expr:
    """base to the exponent: sympy's power where the exponent is a number, else the atom."""
    base, exponent = sp.sympify(base), sp.sympify(exponent)
    return base**exponent if exponent.is_number else power(base, exponent)


def rsqrt(value: Any) -> sp.Expr:
    """1 / sqrt(x)."""
    return sp.Pow(value, sp.Rational(-1, 2))
