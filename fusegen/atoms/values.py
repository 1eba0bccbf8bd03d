"""What formulas are worth where all their symbols are numbers: each atom's value, to any number of digits.

sympy does not know the atoms, so it neither folds `normcdf(1)` nor converts it to a float.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any

import mpmath
import sympy as sp
from sympy.core.relational import Relational

from fusegen.atoms.constants import DIGITS, number
from fusegen.atoms.declare import ATOMS
from fusegen.atoms.named_parts import Let
from fusegen.atoms.special import Special, infinity, minus_infinity, undefined, zero

__all__ = ["compiled", "constant", "evaluate", "folded"]

Number = Any  # an mpmath number

_COMPARE: dict[str, Callable[[Number, Number], bool]] = {
    **{"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    **{"==": operator.eq, "!=": operator.ne},
}


def evaluate(expr: sp.Basic, known: Mapping[sp.Symbol, Number]) -> Number:
    """Return an expression's value in mpmath's precision, which may be infinite, complex or NaN.

    Args:
        expr: over symbols in `known`.
        known: the value of each.

    Raises:
        ArithmeticError: it divides by zero, or is no number.
        KeyError: it has a function that is none of numbers, such as a sum over a row.
    """
    if expr.is_Symbol:
        return known[expr]
    if isinstance(expr, Special):
        return mpmath.mpf(expr.value)
    if isinstance(expr, Let):
        return evaluate(expr.value, known)
    if isinstance(expr, sp.Piecewise):
        return evaluate(next(v for v, c in expr.args if _holds(c, known)), known)
    if not expr.args:
        value = expr.evalf(mpmath.mp.dps + 2)
        if not value.is_Float:
            if value in (sp.nan, sp.zoo) or not value.is_number:
                raise ArithmeticError(f"{expr} is no number")
            return mpmath.mpf(str(value)) if value.is_real else mpmath.mpc(0, 1)
        return mpmath.mpf(value._mpf_)
    args = [evaluate(arg, known) for arg in expr.args]
    if expr.is_Add:
        return mpmath.fsum(args)
    if expr.is_Mul:
        return mpmath.fprod(args)
    if expr.is_Pow:
        return mpmath.power(args[0], args[1])
    return ATOMS[expr.func].value(*args)


def _holds(condition: sp.Basic, known: Mapping[sp.Symbol, Number]) -> bool:
    if isinstance(condition, Relational):
        sides = (evaluate(side, known) for side in condition.args)
        return _COMPARE[condition.rel_op](*sides)
    if isinstance(condition, sp.And):
        return all(_holds(c, known) for c in condition.args)
    if isinstance(condition, sp.Or):
        return any(_holds(c, known) for c in condition.args)
    return bool(condition)


def constant(expr: sp.Basic) -> float | None:
    """Return the value of an expression without symbols as the nearest double; None where it has none."""
    with mpmath.workdps(DIGITS):
        try:
            value = evaluate(expr, {})
        except (ArithmeticError, KeyError, ValueError):
            return None
        if isinstance(value, mpmath.mpc) or mpmath.isnan(value):
            return None
        return float(value)


def folded(expr: sp.Expr) -> sp.Expr:
    """Return an expression with each atom of a constant as its value, if that is a finite number."""
    found: dict[sp.Basic, sp.Expr] = {}
    for part in expr.atoms(sp.Function):
        if part.func in ATOMS and not part.free_symbols:
            value = constant(part)
            if value is not None and abs(value) <= sys.float_info.max:
                found[part] = number(value)
    expr = expr.xreplace(found) if found else expr
    return expr.replace(_held_number, _plain_number) if expr.has(Special) else expr


def _held_number(expr: sp.Basic) -> bool:
    """Return whether an expression is a number that is calculated with a special one, as `-infinity` is."""
    special = isinstance(expr, Special) or not isinstance(expr, sp.Expr)
    return bool(not special and not expr.free_symbols and expr.has(Special))


def _plain_number(expr: sp.Basic) -> sp.Basic:
    with mpmath.workdps(DIGITS):
        try:
            value = evaluate(expr, {})
        except (ArithmeticError, KeyError, ValueError):
            return expr
    if isinstance(value, mpmath.mpc):
        return expr
    if mpmath.isnan(value):
        return undefined
    if mpmath.isinf(value):
        return infinity if value > 0 else minus_infinity
    return number(float(value)) if value else zero


def compiled(expr: sp.Expr, symbol: sp.Symbol) -> Callable[[Number], Number]:
    """Return a smooth expression of one variable as a function of an mpmath number.

    It gives what `evaluate` gives, several times as fast: each part that occurs more than once is computed
    once, and the constants once for each precision.
    """
    place: dict[sp.Basic, int] = {symbol: 0}
    steps: list[tuple[Callable[..., Number], tuple[int, ...]]] = []
    constants: list[sp.Basic] = []

    def visit(part: sp.Basic) -> int:
        if part in place:
            return place[part]
        if not part.free_symbols:
            constants.append(part)
            number = len(constants) - 1
            steps.append((lambda: known[mpmath.mp.prec][number], ()))
        elif part.is_Pow and part.exp.is_Integer:
            exponent = int(part.exp)
            steps.append((lambda base: base**exponent, (visit(part.base),)))
        else:
            arguments = tuple(visit(arg) for arg in part.args)
            if part.is_Add or part.is_Mul:
                joined = mpmath.fsum if part.is_Add else mpmath.fprod
                steps.append((lambda *values: joined(values), arguments))
            else:
                steps.append((mpmath.power if part.is_Pow else ATOMS[part.func].value, arguments))
        place[part] = len(steps)
        return place[part]

    known: dict[int, list[Number]] = {}
    last = visit(expr)

    def function(x: Number) -> Number:
        if mpmath.mp.prec not in known:
            known[mpmath.mp.prec] = [evaluate(c, {}) for c in constants]
        values = [x]
        for operation, arguments in steps:
            values.append(operation(*[values[a] for a in arguments]))
        return values[last]

    return function
