"""Finds parts that the expressions of one stage have in common, and names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sympy as sp
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanFunction

from fusegen.lower import arithmetic

_HEADS: dict[type[sp.Basic], str] = {
    sp.Add: "sum",
    sp.Mul: "product",
    sp.Pow: "power",
    arithmetic.Sum: "sum",
    arithmetic.Difference: "difference",
    arithmetic.Fused: "sum",
    arithmetic.Product: "product",
    arithmetic.Quotient: "quotient",
    arithmetic.Power: "power",
    arithmetic.Inverse: "inverse",
}


@dataclass(frozen=True)
class Named:
    """An expression, its value's name, and the symbol by which other expressions read it."""

    name: str
    expr: sp.Expr
    note: str
    symbol: sp.Symbol


def share(exprs: Sequence[Named]) -> list[Named]:
    """Return the expressions with common parts taken out, each part before its first use.

    A part is named after the expression that uses it first and the function at its head: `swish_sigmoid`.
    Conditions stay where they are: the compiler shares those.
    """
    numbered = (sp.Symbol(f"_shared{i}", real=True) for i in range(100_000))
    parts, reduced = sp.cse([e.expr for e in exprs], symbols=numbered, order="canonical")
    inlined: dict[sp.Basic, sp.Basic] = {}
    defined: dict[sp.Symbol, sp.Expr] = {}
    for symbol, value in parts:
        value = value.xreplace(inlined)
        if isinstance(value, (Relational, BooleanFunction)):
            inlined[symbol] = value
        else:
            defined[symbol] = value
    taken = {e.name for e in exprs}
    emitted: set[sp.Symbol] = set()
    result: list[Named] = []
    for named, expr in zip(exprs, reduced, strict=True):
        expr = expr.xreplace(inlined)
        for symbol in _needed(expr, defined, emitted):
            emitted.add(symbol)
            value = defined[symbol]
            name = _fresh(f"{named.name.removeprefix('d_')}_{_head(value)}", taken)
            result.append(Named(name, value, "", symbol))
        result.append(Named(named.name, expr, named.note, named.symbol))
    return result


def _needed(
    expr: sp.Basic, defined: dict[sp.Symbol, sp.Expr], emitted: set[sp.Symbol]
) -> Iterator[sp.Symbol]:
    """Yield the shared parts that an expression needs and that are not yet emitted, arguments first."""
    for symbol in sorted(expr.free_symbols, key=str):
        if symbol in defined and symbol not in emitted:
            yield from _needed(defined[symbol], defined, emitted)
            if symbol not in emitted:
                yield symbol


def _head(value: sp.Expr) -> str:
    """Return a word for the operation at the head of an expression."""
    if value.is_Function and not isinstance(value, sp.Piecewise):
        return type(value).__name__.lower()
    return _HEADS.get(type(value), "part")


def _fresh(name: str, taken: set[str]) -> str:
    """Return a name that is not taken yet, and take it."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}{count}"
    taken.add(candidate)
    return candidate
