"""In which order an expression adds and multiplies, and which products it fuses with sums.

A sympy expression leaves that open: `a + b*c - d` may be rounded in many ways. `arranged` decides, and the
printer writes down what was decided. Compilers neither reorder nor fuse (`toolchain/compilers.py`), so an
expression that is arranged once has the same bits wherever it is computed.

Values that must have the same bits in every operator (`reproduced.py`) are arranged as a whole, before they
share parts with their neighbours. All others are arranged afterwards, when they are printed.
"""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp
from sympy.functions.elementary.piecewise import ExprCondPair

from fusegen import atoms

#: What keeps sympy from evaluating what is made anew, where it is not `evaluate=False`.
_AS_IT_IS: dict[type[sp.Basic], dict[str, bool]] = {ExprCondPair: {}}

#: How many axes an expression varies along.
Weight = Callable[[sp.Expr], int]
#: An expression as text; it must not hold a name that differs from operator to operator.
Text = Callable[[sp.Expr], str]


class Arranged(sp.Expr):
    """One operation with its operands, which sympy neither reorders nor folds."""

    is_commutative = True
    is_real = True

    def could_extract_minus_sign(self) -> bool:
        """Return False, so that sympy pulls no sign out of a function's argument."""
        return False


class Sum(Arranged):
    """a + b."""


class Difference(Arranged):
    """a - b."""


class Product(Arranged):
    """a * b."""


class Quotient(Arranged):
    """a / b."""


class Fused(Arranged):
    """a * b + c, rounded once."""


class Negative(Arranged):
    """-a."""


class Inverse(Arranged):
    """1 / a."""


class Power(Arranged):
    """a to a positive whole number."""


class TimesPower(Arranged):
    """a * b * ... * b, from left to right: b to a positive whole number may underflow where this does not."""


class Sqrt(Arranged):
    """The square root."""


class Rsqrt(Arranged):
    """1 / sqrt(a)."""


class ExpDifference(Arranged):
    """exp(a - b), where b varies less than a."""


def arranged(expr: sp.Expr, weight: Weight, text: Text = str) -> sp.Expr:
    """Return an expression whose every operation is an `Arranged` one or a function.

    Args:
        expr: an expression; what is arranged in it already stays as it is.
        weight: orders the terms of a sum, heaviest first; large cancelling terms must meet before
            small ones are added, so a sum starts with what varies most.
        text: orders what weighs the same.
    """
    return _Arrangement(weight, text).of(expr)


class _Arrangement:
    def __init__(self, weight: Weight, text: Text) -> None:
        self.weight, self.text = weight, text

    def of(self, expr: sp.Basic) -> sp.Basic:
        """Return an expression or condition, arranged."""
        if isinstance(expr, Arranged) or not expr.args or not expr.free_symbols:
            return expr
        if expr.is_Add:
            return self._sum(expr)
        if expr.is_Mul:
            return self._product(expr)
        if expr.is_Pow:
            return self._power(expr)
        if expr.func is sp.exp and (pair := self._shifted(expr.args[0])):
            return ExpDifference(*pair)
        args = [self.of(arg) for arg in expr.args]
        return expr.func(*args, **_AS_IT_IS.get(expr.func, {"evaluate": False}))

    def _shifted(self, expr: sp.Expr) -> tuple[sp.Expr, sp.Expr] | None:
        """Return a and b of a - b where b varies less, such as a row's maximum, or None."""
        if not expr.is_Add or len(expr.args) != 2:
            return None
        a, b = sorted(expr.args, key=lambda term: -self.weight(term))
        if not b.could_extract_minus_sign() or self.weight(a) == self.weight(b):
            return None
        return self.of(a), self.of(-b)

    def _sum(self, expr: sp.Expr) -> sp.Expr:
        def rank(term: sp.Expr) -> tuple[bool, int, bool, bool, str]:
            negative = term.could_extract_minus_sign()
            return (
                term.is_number,
                -self.weight(term),
                not (-term if negative else term).is_Symbol,
                negative,
                self.text(term),
            )

        first, *rest = sorted(expr.args, key=rank)
        if len(rest) == 1 and first.could_extract_minus_sign():
            first, rest = rest[0], [first]
        found = self.of(first)
        for place, term in enumerate(rest):
            if product := self._factors(term):
                found = Fused(*product, found)
            elif place == 0 and (product := self._factors(first)):
                found = Fused(*product, self.of(term))
            elif term.could_extract_minus_sign():
                found = Difference(found, self.of(-term))
            else:
                found = Sum(found, self.of(term))
        return found

    def _factors(self, term: sp.Expr) -> tuple[sp.Expr, sp.Expr] | None:
        """Return a and b where a term is computed as a * b, so that a sum can be fused with it."""
        if term.is_Mul and term.could_extract_minus_sign():
            product = self._factors(-term)
            return product and (Negative(product[0]), product[1])
        found = self.of(term) if term.is_Mul or term.is_Pow else None
        return found.args if isinstance(found, Product) else None

    def _rank_of_factor(self, factor: sp.Expr) -> tuple[int, bool, str]:
        return (-self.weight(factor), not factor.is_Symbol, self.text(factor))

    def _product(self, expr: sp.Expr) -> sp.Expr:
        coefficient, factors = expr.as_coeff_mul()
        if coefficient.is_negative:
            return Negative(self.of(-expr))
        above: list[sp.Expr] = [] if coefficient == 1 else [coefficient]
        below: list[sp.Expr] = []
        for factor in sorted(factors, key=self._rank_of_factor):
            if factor.is_Pow and factor.exp.is_number and factor.exp == -1:
                below.append(self.of(factor.base))
            else:
                above.append(self.of(factor))
        if not above:
            return Inverse(_chained(Product, below))
        return _product_of(above, below)

    def _power(self, expr: sp.Expr) -> sp.Expr:
        base, exponent = expr.as_base_exp()
        if exponent == -1:
            return Inverse(self.of(base))
        if exponent.is_Integer and exponent < 0:  # of a number whose square would overflow too
            return Power(Inverse(self.of(base)), -exponent)
        if exponent.is_Integer and exponent == 2 and base.is_Symbol:
            return Product(base, base)
        if exponent.is_Integer:
            return Power(self.of(base), exponent)
        if exponent.is_Rational and exponent.q == 2:  # powers of roots cost less than pow
            root = (Sqrt if exponent > 0 else Rsqrt)(self.of(base))
            return root if abs(exponent.p) == 1 else Power(root, sp.Integer(abs(exponent.p)))
        return atoms.power(self.of(base), self.of(exponent))


def _product_of(factors: list[sp.Expr], below: list[sp.Expr]) -> sp.Expr:
    """Return a product over others; powers come last, multiplied one by one.

    A power alone may leave the range: the derivative of a norm multiplies a sum by rstd^3, which underflows
    in float32 where x is beyond 1e12; that of a density of a product multiplies what is nearly 0 by a power
    that overflows.
    """
    powers = [f for f in factors if isinstance(f, Power) or _is_square(f)]
    rest = [f for f in factors if f not in powers]
    if not rest:
        return _chained(Quotient, [_chained(Product, factors), *below])
    found = _chained(Quotient, [_chained(Product, rest), *below])
    for power in powers:
        if isinstance(power, Power):
            found = TimesPower(found, *power.args)
        else:
            found = _chained(Product, [found, *power.args])
    return found


def _is_square(factor: sp.Expr) -> bool:
    return isinstance(factor, Product) and factor.args[0] == factor.args[1]


def _chained(operation: type[Arranged], parts: list[sp.Expr]) -> sp.Expr:
    first, *rest = parts
    for part in rest:
        first = operation(first, part)
    return first
