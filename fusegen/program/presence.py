"""Presence: of which cotangents a value of a derivative is made, and where it is no term of a sum.

A caller may ignore some outputs of a forward pass. Their cotangents are absent, and what is made of absent
cotangents alone does not exist in torch, whose graph has no such node. It is not 0: its derivative may be
infinite, and 0 times an infinity is NaN. So where values of different cotangents meet, each is selected by
whether it is present. A value that no other meets needs no selection: the gradient that it ends in is absent.

A presence is a set of alternatives, each a set of cotangents that must all be there. In a derivative of a
derivative, what goes through a selection needs its cotangents too.
"""

from __future__ import annotations

from collections.abc import Iterable

import sympy as sp

from fusegen.atoms.special import where
from fusegen.program.builder import Builder
from fusegen.program.ir import Input, Map, Value

__all__ = ["ALWAYS", "Presence", "both", "either", "is_presence", "needed_by", "of", "selected"]

#: Alternatives of cotangents, by the names of their tensors.
Presence = frozenset[frozenset[str]]
#: The presence of what needs no cotangent.
ALWAYS: Presence = frozenset({frozenset()})


def is_presence(own: Value) -> bool:
    """Return whether a value says if a cotangent is present."""
    return isinstance(own, Input) and own.source == "presence"


def of(cotangents: Iterable[str]) -> Presence:
    """Return the presence of what any of some cotangents suffices for."""
    return frozenset(frozenset({name}) for name in cotangents)


def either(presences: Iterable[Presence]) -> Presence:
    """Return the presence of a sum."""
    found = frozenset[frozenset[str]]().union(*presences)
    return frozenset(own for own in found if not any(other < own for other in found))


def both(first: Presence, second: Presence) -> Presence:
    """Return the presence of a product."""
    return either([frozenset(a | b for a in first for b in second)])


def selected(builder: Builder, name: str, expr: sp.Expr, presence: Presence) -> sp.Symbol:
    """Return an expression where it is present, else 0, as a node of its own that `needed_by` knows.

    Args:
        builder: where the nodes are made.
        name: what the expression is part of.
        expr: the expression.
        presence: its presence.
    """
    alternatives = [
        sp.And(*(sp.Ne(builder.presence(tensor).symbol, 0) for tensor in sorted(own)))
        for own in sorted(presence, key=sorted)
    ]
    cotangents = sorted(frozenset[str]().union(*presence))
    ending = "_".join(cotangent.removeprefix("grad_") for cotangent in cotangents)
    term = builder.map(f"{name}_by_{ending}", expr)
    choice = where(sp.Or(*alternatives), term.symbol, 0)
    note = f"0 unless {' or '.join(cotangents)} is present"
    return builder.map(f"{name}_of_{ending}", choice, note).symbol


def needed_by(node: Value) -> Presence:
    """Return the presence that a node selects by: ALWAYS if it is no selection."""
    if not isinstance(node, Map) or not isinstance(node.expr, sp.Piecewise):
        return ALWAYS
    cotangents = {a.symbol: a.tensor for a in node.args if isinstance(a, Input) and is_presence(a)}
    if not cotangents:
        return ALWAYS
    condition = node.expr.args[0][1]
    return frozenset(
        frozenset(cotangents[symbol] for symbol in own.free_symbols)
        for own in (condition.args if isinstance(condition, sp.Or) else (condition,))
    )
