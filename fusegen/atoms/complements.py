"""What stands in the place of differences that cancel, and of two functions that are one.

1 - sigmoid(x) is sigmoid(-x), which is exact.

Where sigmoid(x) is near 1, 1 - sigmoid(x) keeps few digits of it, or none. Functions that saturate have such
differences in their derivatives: sigmoid' = s (1 - s), tanh' = 1 - tanh^2, gelu's (1 + tanh) / 2.
(Muller, Elementary Functions, 3rd ed. 2016, ch. 3; Higham, Accuracy and Stability, 2002, section 1.7.)

tanh(softplus(x)) takes two exponentials and a logarithm, and as one function a single exponential.
"""

from __future__ import annotations

from collections.abc import Iterator

import sympy as sp

from fusegen.atoms.declare import ATOMS, Cancels

__all__ = ["complemented"]

_NOTHING = Cancels()


def complemented(expr: sp.Expr) -> sp.Expr:
    """Return an expression with each difference that cancels in a form that does not, and what atoms are of
    one another as one atom."""
    if not expr.has(*(f for f, atom in ATOMS.items() if atom.cancels)):
        return expr
    args = [complemented(a) if isinstance(a, sp.Expr) else a for a in expr.args]
    if isinstance(expr, sp.Piecewise):
        args = [(complemented(value), condition) for value, condition in expr.args]
        changed = any(a[0] != b[0] for a, b in zip(args, expr.args, strict=True))
    else:
        changed = any(a is not b for a, b in zip(args, expr.args, strict=True))
    walked = expr.func(*args) if changed else expr
    if walked.is_Add:
        return _sum(walked)
    atom = ATOMS.get(walked.func)
    if atom and (composed := atom.composed(walked.args[0])) is not None:
        return composed
    after_one = _cancels(walked).after_one
    if after_one:
        one, rest = walked.args[0].as_coeff_Add()
        return after_one(rest) if one == 1 and rest != 0 else walked
    return walked


def _cancels(function: sp.Basic) -> Cancels:
    """Return what stands for sums with a function; nothing, where that is no atom."""
    atom = ATOMS.get(function.func)
    return (atom and atom.cancels) or _NOTHING


def _sum(expr: sp.Expr) -> sp.Expr:
    """Return a sum with the terms that cancel replaced, two by two."""
    while expr.is_Add:
        terms = set(expr.args)
        found = next((f for term in expr.args for f in _replacements(term, terms)), None)
        if found is None:
            return expr
        term, other, joined = found
        expr = sp.Add(*(terms - {term, other}), joined)
    return expr


def _replacements(term: sp.Expr, terms: set[sp.Expr]) -> Iterator[tuple[sp.Expr, sp.Expr, sp.Expr]]:
    """Yield what a term and another one are together, where they cancel: (term, other, both)."""
    for factor in sp.Mul.make_args(term):
        function = factor.base if factor.is_Pow and factor.exp == 2 else factor
        cancels = _cancels(function)
        if cancels is _NOTHING:
            continue
        rest, u = term / factor, function.args[0]
        if function is not factor:  # tanh(u)^2 - 1
            if cancels.square_less_one and -rest in terms:
                yield term, -rest, rest * cancels.square_less_one(u)
            continue
        for number, joined in cancels.plus.items():
            if number * rest in terms:
                yield term, number * rest, rest * joined(u)
        difference = cancels.mirrored
        ahead = not u.could_extract_minus_sign()  # of f(u) and f(-u), the first
        if difference and ahead and -rest * function.func(-u) in terms:
            yield term, -rest * function.func(-u), rest * difference(u)
        if cancels.less_argument and -rest * u in terms:
            yield term, -rest * u, rest * cancels.less_argument(u)
