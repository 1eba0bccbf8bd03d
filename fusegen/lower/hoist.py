"""Moves parts that do not vary along a row, along a column, or at all, out of an element's expression.

`x * (rsqrt(var + eps) * weight)` computes its factor once per column, and `e / sum` its reciprocal once per
row. Sums are left as they are: regrouping the terms of `x - max - log(sum)` would lose digits.
"""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp
from sympy.core.parameters import distribute

from fusegen.program import Kind, joined

#: Gives a hoisted expression a place, and returns the symbol that replaces it.
Place = Callable[[sp.Expr, Kind, str], sp.Symbol]


def kind_of(expr: sp.Basic, kinds: dict[sp.Symbol, Kind]) -> Kind:
    """Return the axes that an expression varies along."""
    return joined(kinds[symbol] for symbol in expr.free_symbols)


def hoist(expr: sp.Expr, kinds: dict[sp.Symbol, Kind], name: str, place: Place) -> sp.Expr:
    """Return `expr` with every part of a smaller kind replaced by the symbol that `place` returns.

    Args:
        expr: the expression of a node.
        kinds: the kind of each symbol; `place` adds the symbols that it makes.
        name: the node's name, from which parts derive theirs.
        place: called with a part and its kind.
    """
    whole = kind_of(expr, kinds)

    def walk(part: sp.Basic) -> sp.Basic:
        if part.is_Symbol or not part.free_symbols:
            return part
        kind = kind_of(part, kinds)
        if kind != whole and isinstance(part, sp.Expr) and not _trivial(part):
            return place(part, kind, name)
        if part.is_Mul:
            return _product(part)
        return part.func(*(walk(arg) for arg in part.args))

    def _product(part: sp.Expr) -> sp.Expr:
        constants = [f for f in part.args if not f.free_symbols]
        groups: dict[Kind, list[sp.Expr]] = {}
        for factor in part.args:
            if factor.free_symbols:
                groups.setdefault(kind_of(factor, kinds), []).append(factor)
        larger = [k for k in groups if k not in (Kind.SCALAR, whole)]
        if larger and Kind.SCALAR in groups:  # one factor per row or column, not two per element
            groups[larger[0]] += groups.pop(Kind.SCALAR)
        made: list[sp.Basic] = list(constants)
        for kind, factors in groups.items():
            product = sp.Mul(*factors)
            if kind != whole and not _trivial(product):
                made.append(place(product, kind, name))
            else:
                made.extend(walk(f) for f in factors)
        return sp.Mul(*made)

    with distribute(False):  # (2 x + 3) / 6 is exact where it is 0, but x / 3 + 1 / 2 is not
        walked = walk(expr)
    assert isinstance(walked, sp.Expr)
    return walked


def _trivial(expr: sp.Expr) -> bool:
    """Whether computing an expression again costs no more than loading it."""
    return bool(
        expr.is_Symbol
        or (
            expr.is_Mul
            and all(a.is_Symbol or a.is_Number for a in expr.args)
            and sum(1 for a in expr.args if a.is_Symbol) == 1
        )
    )
