"""Differences that cancel, and what stands in their place: 1 - sigmoid(x) is sigmoid(-x), which is exact.

Where sigmoid(x) is near 1, 1 - sigmoid(x) keeps few digits of it, or none. Functions that saturate have such
differences in their derivatives: sigmoid' = s (1 - s), tanh' = 1 - tanh^2, gelu's (1 + tanh) / 2.
(Muller, Elementary Functions, 3rd ed. 2016, ch. 3; Higham, Accuracy and Stability, 2002, section 1.7.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import sympy as sp

from fusegen.atoms.functions import (
    expm1,
    log1p,
    normcdf,
    sech2,
    sigmoid,
    softplus,
    tanh,
    tanhshrink,
)

__all__ = ["complemented"]

_HALF = sp.Rational(1, 2)
_ROOT = sp.sqrt(2)
#: By function: what f(u) + number is, for the numbers that cancel it.
_SUMS: dict[type[sp.Basic], dict[sp.Expr, Callable[[sp.Expr], sp.Expr]]] = {
    sigmoid: {
        sp.Integer(-1): lambda u: -sigmoid(-u),
        -_HALF: lambda u: tanh(u / 2) / 2,
    },
    normcdf: {
        sp.Integer(-1): lambda u: -normcdf(-u),
        -_HALF: lambda u: sp.erf(u / _ROOT) / 2,
    },
    sp.erf: {
        sp.Integer(-1): lambda u: -2 * normcdf(-_ROOT * u),
        sp.Integer(1): lambda u: 2 * normcdf(_ROOT * u),
    },
    tanh: {
        sp.Integer(-1): lambda u: -2 * sigmoid(-2 * u),
        sp.Integer(1): lambda u: 2 * sigmoid(2 * u),
    },
    sech2: {sp.Integer(-1): lambda u: -(tanh(u) ** 2)},
    sp.exp: {sp.Integer(-1): expm1},
}
#: By function: what f(u) - f(-u) is.
_DIFFERENCES: dict[type[sp.Basic], Callable[[sp.Expr], sp.Expr]] = {
    sigmoid: lambda u: tanh(u / 2),
    normcdf: lambda u: sp.erf(u / _ROOT),
    softplus: lambda u: u,
}
_FUNCTIONS = (*_SUMS, *_DIFFERENCES, sp.log)


def complemented(expr: sp.Expr) -> sp.Expr:
    """Return an expression with each difference that cancels in a form that does not."""
    if not expr.has(*_FUNCTIONS):
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
    if isinstance(walked, sp.log):
        one, rest = walked.args[0].as_coeff_Add()
        return log1p(rest) if one == 1 and rest != 0 else walked
    return walked


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
        if not isinstance(function, _FUNCTIONS) or not function.args:
            continue
        rest, u = term / factor, function.args[0]
        if function is not factor:  # tanh(u)^2 - 1
            if isinstance(function, tanh) and -rest in terms:
                yield term, -rest, -rest * sech2(u)
            continue
        for number, joined in _SUMS.get(function.func, {}).items():
            if number * rest in terms:
                yield term, number * rest, rest * joined(u)
        difference = _DIFFERENCES.get(function.func)
        ahead = not u.could_extract_minus_sign()  # of f(u) and f(-u), the first
        if difference and ahead and -rest * function.func(-u) in terms:
            yield term, -rest * function.func(-u), rest * difference(u)
        if isinstance(function, tanh) and -rest * u in terms:
            yield term, -rest * u, -rest * tanhshrink(u)
        # a softplus(u) - b softplus(-u) is (a - b) softplus(u) + b u: only what is left of it is near 0.
        if isinstance(function, softplus) and not rest.could_extract_minus_sign():
            for other in terms:
                factors = sp.Mul.make_args(other)
                if softplus(-u) in factors and other.could_extract_minus_sign():
                    b = -other / softplus(-u)
                    yield term, other, (rest - b) * softplus(u) + b * u
