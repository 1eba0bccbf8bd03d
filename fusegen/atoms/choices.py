"""Products with a derivative that a choice makes 0: the choice stands outside, so 0 * inf never arises.

The gradient of sqrt(relu(x)) below 0 is 0, not 0 times the infinite derivative of the root at 0; that of a
mean over nothing is 0, not 0 times 1 / 0. torch selects there too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sympy as sp

from fusegen.atoms.special import where

__all__ = ["Choice", "choices_outside", "masked"]

#: Puts an expression into the cases of a choice that are not 0.
Choice = Callable[[sp.Expr], sp.Expr]


def choices_outside(partial: sp.Expr) -> sp.Expr:
    """Return a derivative with each choice that makes a product 0 outside of that product."""
    if partial.is_Add:
        return sp.Add(*(choices_outside(term) for term in partial.args))
    if partial.is_Mul:
        product = sp.Mul(*(choices_outside(factor) for factor in partial.args))
        return masked(product, lambda rest, _: rest)
    if isinstance(partial, sp.Piecewise):
        return sp.Piecewise(*((choices_outside(value), c) for value, c in partial.args))
    return partial


def _everywhere(partial: sp.Expr) -> sp.Expr:
    return partial


def masked(
    partial: sp.Expr, times: Callable[[sp.Expr, Choice], sp.Expr], within: Choice = _everywhere
) -> sp.Expr:
    """Return the product of a derivative with other factors, 0 wherever the derivative chooses 0.

    Args:
        partial: the derivative.
        times: gives the product, from the derivative where it is not 0 and the choice that is around that.
        within: the choice that is around all of it.
    """
    factors = sp.Mul.make_args(partial)
    mask = next((f for f in factors if _chooses_zero(f)), None)
    if mask is None:
        return times(partial, within)
    rest = sp.Mul(*(f for f in factors if f is not mask))

    def chosen(cases: Sequence[tuple[sp.Expr, sp.Basic]], within: Choice) -> sp.Expr:
        if not any(value == 0 or value.has(sp.Piecewise) for value, _ in cases):
            return masked(rest * sp.Piecewise(*cases), times, within)
        (value, condition), *others = cases
        zero = value == 0
        here = (
            value if zero else masked(rest * value, times, lambda p: within(where(condition, p, 0)))
        )
        if not others:
            return here
        elsewhere = chosen(others, lambda p: within(where(condition, 0, p)))
        return where(condition, here, elsewhere)

    return chosen(mask.args, within)


def _chooses_zero(factor: sp.Expr) -> bool:
    return isinstance(factor, sp.Piecewise) and any(
        value == 0 or _chooses_zero(value) for value, _ in factor.args
    )
