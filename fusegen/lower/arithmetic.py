"""Decides the order of additions and multiplications in an expression, and which of them are fused.

A sympy expression leaves this open: `a + b*c - d` may be rounded in many ways. `arranged` decides, and the
printer writes down the decision. Compilers neither reorder nor fuse (`toolchain/compilers.py`). So an
expression that is arranged once has the same bits wherever it is computed.

Values that must have the same bits in every operator (`mark_reproduced.py`) are arranged as a whole, before
they share parts with their neighbours. All other values are arranged afterwards, when they are printed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import sympy as sp
from sympy.functions.elementary.piecewise import ExprCondPair

from fusegen import atoms

#: Arguments that keep sympy from evaluating a rebuilt expression, if they differ from `evaluate=False`.
_AS_IT_IS: dict[type[sp.Basic], dict[str, bool]] = {ExprCondPair: {}}

#: Counts the axes that an expression varies along.
Weight = Callable[[sp.Expr], int]
#: Turns an expression into text. The text must not contain names that differ between operators.
Text = Callable[[sp.Expr], str]


class Arranged(sp.Expr):
    """One operation and its operands, which sympy neither reorders nor folds."""

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
    """a to the power of a positive integer."""


class TimesPower(Arranged):
    """a * b * ... * b, from left to right: the power of b alone may underflow where this does not."""


class Sqrt(Arranged):
    """The square root."""


class Rsqrt(Arranged):
    """1 / sqrt(a)."""


def arranged(expr: sp.Expr, weight: Weight, text: Text = str) -> sp.Expr:
    """Return an equivalent expression in which every operation is `Arranged` or a function.

    Args:
        expr: an expression. Parts of it that are already arranged stay as they are.
        weight: orders the terms of a sum, heaviest first. Large terms that cancel must meet before small ones
            are added, so a sum starts with the terms that vary along most axes.
        text: orders terms of equal weight.
    """
    return _Arrangement(weight, text).of(expr)


class _Arrangement:
    """Arranges one expression, by the weight and the text of its parts."""

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
        args = [self.of(arg) for arg in expr.args]
        return expr.func(*args, **_AS_IT_IS.get(expr.func, {"evaluate": False}))

    def _sum(self, expr: sp.Expr) -> sp.Expr:
        """Return a sum of terms in their order, with products fused into it."""

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
        """Return a and b if a term is computed as a * b, so that it can be fused with a sum."""
        if term.is_Mul and term.could_extract_minus_sign():
            product = self._factors(-term)
            return product and (Negative(product[0]), product[1])
        found = self.of(term) if term.is_Mul or term.is_Pow else None
        return found.args if isinstance(found, Product) else None

    def _rank_of_factor(self, factor: sp.Expr) -> tuple[int, bool, str]:
        """Return the sort key of a factor in a product."""
        return (-self.weight(factor), not factor.is_Symbol, self.text(factor))

    def _product(self, expr: sp.Expr) -> sp.Expr:
        """Return a product of factors in their order, with inverses as one division."""
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
        return _product_of(above, below, self.weight)

    def _power(self, expr: sp.Expr) -> sp.Expr:
        """Return a power by operations that suit its exponent."""
        base, exponent = expr.as_base_exp()
        if exponent == -1:
            return Inverse(self.of(base))
        if exponent.is_Integer and exponent < 0:  # the square of the base might overflow too
            return Power(Inverse(self.of(base)), -exponent)
        if exponent.is_Integer and exponent == 2 and base.is_Symbol:
            return Product(base, base)
        if exponent.is_Integer:
            return Power(self.of(base), exponent)
        if exponent.is_Float and abs(float(exponent)) == 0.5:  # torch.pow takes a root too
            exponent = sp.Rational(exponent)
        if exponent.is_Rational and exponent.q == 2:  # powers of roots cost less than pow
            root = (Sqrt if exponent > 0 else Rsqrt)(self.of(base))
            return root if abs(exponent.p) == 1 else Power(root, sp.Integer(abs(exponent.p)))
        return atoms.power(self.of(base), self.of(exponent))


def _product_of(factors: list[sp.Expr], below: list[sp.Expr], weight: Weight) -> sp.Expr:
    """Return the product of `factors`, divided by those `below`.

    Powers come last, multiplied one factor at a time.

    A power alone may leave the range of numbers. The derivative of a norm multiplies a sum by rstd^3, which
    underflows in float32 if x is beyond 1e12. The derivative of a product's density multiplies a number near
    0 by a power that overflows.
    """
    powers = [f for f in factors if isinstance(f, Power) or _is_square(f)]
    rest = [f for f in factors if f not in powers]
    if not rest:
        return _chained(Quotient, [_chained(Product, factors), *below])
    inverse = next((p for p in powers if isinstance(p, Power) and _is_inverse(p.args[0])), None)
    if inverse is not None:
        powers.remove(inverse)
        base, exponent = inverse.args
        rest, taken = _between(rest, base, int(exponent), weight)
        if taken < exponent:
            powers.insert(0, Power(base, exponent - taken))
    found = _chained(Quotient, [_chained(Product, rest), *below])
    for power in powers:
        if isinstance(power, Power) and power.args[1] != 1:
            found = TimesPower(found, *power.args)
        elif isinstance(power, Power):
            found = Product(found, power.args[0])
        else:
            found = _chained(Product, [found, *power.args])
    return found


def _between(
    factors: list[sp.Expr], inverse: sp.Expr, count: int, weight: Weight
) -> tuple[list[sp.Expr], int]:
    """Put an inverse between each two factors that vary, at most `count` times; return how often, too.

    The derivative of a quotient divides a sum and a factor by the square of a scale. Each may be as large as
    the scale: their product overflows, the quotient of each does not.
    """
    found, taken = factors[:1], 0
    for before, factor in itertools.pairwise(factors):
        if taken < count and weight(before) and weight(factor):
            found.append(inverse)
            taken += 1
        found.append(factor)
    return found, taken


def _is_inverse(base: sp.Expr) -> bool:
    """Whether a power of it is one of a divisor."""
    return isinstance(base, Inverse | Rsqrt)


def _is_square(factor: sp.Expr) -> bool:
    """Whether a factor is a * a."""
    return isinstance(factor, Product) and factor.args[0] == factor.args[1]


def _chained(operation: type[Arranged], parts: list[sp.Expr]) -> sp.Expr:
    """Return the parts combined from left to right by one operation."""
    first, *rest = parts
    for part in rest:
        first = operation(first, part)
    return first
