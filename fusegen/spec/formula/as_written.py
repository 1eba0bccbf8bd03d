"""Operations of a formula as it has them, where sympy would make others of them that give other numbers.

sympy simplifies as algebra does: x / x is 1, exp(log(x)) is x, x * 2 - x * 2 is 0, (x / y)**2 is x**2 / y**2.
With infinities, NaN, 0 and numbers that overflow these are not the same, nor are their derivatives. So an
operand that sympy would merge with another one is held: it becomes a node, which is derived by itself, or, if
it is a name, stands within `together`. Three things stay as sympy does them: terms of one sign that are
alike, whole powers of one sign, and the sign of an odd or even function.
"""

from __future__ import annotations

from collections import Counter

import sympy as sp

from fusegen.atoms import Let, let, log1p, together
from fusegen.atoms.complements import complemented
from fusegen.atoms.constants import value_of
from fusegen.atoms.special import zero

__all__ = ["Product", "Sum", "apart", "function_of", "power_of"]

#: A product's numbers are joined if they lie between this and its inverse. Beyond, what is computed on the
#: way may overflow where their product does not.
_ORDINARY = 2.0**40
#: Functions whose derivative is a power, which would be merged with the argument's own powers.
_LOGARITHMS = (sp.log, log1p)


def apart(operand: sp.Expr, other: sp.Expr) -> sp.Expr:
    """Return an operand so that sympy does not find it equal to another one."""
    return together(operand) if operand == other and value_of(operand) is None else operand


class Sum:
    """A sum whose terms come one after the other.

    Attributes:
        value: the sum.
    """

    def __init__(self, first: sp.Expr) -> None:
        self.value = first
        self._cancelled = False

    def add(self, term: sp.Expr) -> None:
        """Add one more term; if it may cancel one before it, both sums stay as they are."""
        if value_of(self.value) is not None:
            self.value += term
            return
        if self._cancelled or (self.value.is_Add and _coefficient(term)[1] == together(self.value)):
            self.value = together(self.value)
        coefficient, kind = _coefficient(term)
        before = (_coefficient(other) for other in sp.Add.make_args(self.value))
        self._cancelled = any(same == kind and beside * coefficient < 0 for beside, same in before)
        self.value = (together(self.value) if self._cancelled else self.value) + term


def power_of(base: sp.Expr, exponent: sp.Expr) -> sp.Expr:
    """Return a power of a base that sympy does not take apart."""
    result = base**exponent
    if base.is_Symbol or exponent in (0, 1) or (result.is_Pow and result.args == (base, exponent)):
        return result
    number, rest = base.as_coeff_Mul()
    if number != 1 and _ordinary(number) and (number > 0 or exponent.is_Integer):
        return number**exponent * power_of(rest, exponent)
    whole = type(base) is sp.Pow and base.exp.is_Integer and exponent.is_Integer
    if whole and (base.exp > 0 or exponent > 0):
        return result  # (x**2)**3, 1 / x**2
    return _held("base", base) ** exponent


def function_of(function: type[sp.Function], argument: sp.Expr) -> sp.Expr:
    """Return a function of an argument that sympy does not take apart."""
    derived = issubclass(function, _LOGARITHMS) and (argument.is_Pow or argument.is_Mul)
    if derived or (function is sp.exp and argument.has(sp.log)):
        return function(_held("argument", argument))
    result = function(argument)
    same = (function(a, evaluate=False) for a in (argument, -argument))
    if any(result in (one, -one) for one in same):
        return result
    return function(_held("argument", argument))


class Product:
    """A product whose factors come one after the other.

    Attributes:
        number: the product of its numbers.
        rest: the product of its other factors.
    """

    def __init__(self) -> None:
        self.number: sp.Expr = sp.Integer(1)
        self.rest: sp.Expr = sp.Integer(1)

    def multiply(self, factor: sp.Expr) -> None:
        """Multiply it by one more factor."""
        number, factor = _coefficient(factor)
        product = self.number * number
        far = not all(map(_ordinary, (self.number, number, product)))
        if far and self.rest != 1 and 0 not in (self.number, number) and abs(number) != 1:
            self.rest, self.number = _held("factor", self.number * self.rest), number
        else:
            self.number = product
        self._multiply(factor)

    def _multiply(self, factor: sp.Expr) -> None:
        """Multiply it by a factor without a number, whose powers are not merged with those before it."""
        if _merged(self.rest, factor) or _derivatives_merged(self.rest, factor):
            named = factor.is_Symbol or factor.is_Pow or isinstance(factor, Let)
            factor = factor if named else _held("factor", factor)
            if named or not (self.rest.is_Symbol or isinstance(self.rest, Let)):
                self.rest = _held("factor", self.rest)
            factor = together(factor) if _merged(self.rest, factor) else factor
        self.rest *= factor

    @property
    def value(self) -> sp.Expr:
        """The product; a sum in it, or in its derivative, is not multiplied out."""
        if self.rest == 1:
            return self.number
        if self.number == 0:
            return zero * self.rest
        if abs(self.number) == 1:
            return self.number * self.rest
        factors = map(complemented, sp.Mul.make_args(self.rest))
        return sp.Mul(self.number, *(together(f) if f.is_Add else f for f in factors))


def _held(name: str, expr: sp.Expr) -> sp.Expr:
    """Return an operand that sympy does not look into."""
    return together(expr) if expr.is_Symbol or isinstance(expr, Let) else let(name, expr)


def _ordinary(number: sp.Expr) -> bool:
    return bool(1 / _ORDINARY < abs(number) < _ORDINARY)


def _coefficient(term: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """Return the number in a product, and the rest: 1 for a number."""
    if value_of(term) is not None:
        return term, sp.Integer(1)
    number, rest = term.as_coeff_Mul()
    return number, rest


def _factors(expr: sp.Expr) -> Counter[sp.Expr]:
    return Counter(f for f in sp.Mul.make_args(expr) if value_of(f) is None)


def _merged(product: sp.Expr, factor: sp.Expr) -> bool:
    """Return whether sympy merges other powers of the two than whole ones of one sign."""
    before = _factors(product) + _factors(factor)
    signs: dict[sp.Expr, bool] = {}
    for part in before - _factors(product * factor):
        base, exponent = (part.base, part.exp) if type(part) is sp.Pow else (part, sp.Integer(1))
        whole = exponent.is_Integer and not isinstance(part, sp.exp)
        if not whole or signs.setdefault(base, exponent > 0) != (exponent > 0):
            return True
    return False


def _derivatives_merged(product: sp.Expr, factor: sp.Expr) -> bool:
    """Return whether the derivative of a logarithm in one is merged with a power in the other."""
    for one, other in ((product, factor), (factor, product)):
        bases = {f.base if type(f) is sp.Pow else f for f in _factors(other)}
        for part in _factors(one):
            if isinstance(part, _LOGARITHMS):
                argument = part.args[0]
                if (1 + argument if isinstance(part, log1p) else argument) in bases:
                    return True
    return False
