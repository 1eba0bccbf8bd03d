"""Splits row sums that wait for another sum, so that one exchange serves both.

The backward pass of a group norm sums a + r b, where r is itself a sum over the row. Σ(a + r b) = Σa + r Σb,
so the three sums can be taken together. This pays if several blocks share a row, because they wait long for
each other. The threads of one block do not: for them, three sums take longer than a second exchange
(docs/notes/2026-11-22_norms.md).

A term is split off only if the expression itself contains it as a product with a factor that varies along the
row. The rounding of such a product is an error of the unsplit sum too, so the bound ε Σ(|a| + |r b|) still
holds (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 4.2). Σ(x - r) stays whole: x - r
may be exact where Σx - n r has no correct digit.
"""

from __future__ import annotations

from collections.abc import Mapping

import sympy as sp

from fusegen.lower.part import Part, Parts
from fusegen.lower.reductions import within_row
from fusegen.program import Kind, Map, Reduce, Value, depths
from fusegen.program.builder import Builder
from fusegen.program.rebuild import rebuilt

Terms = list[tuple[sp.Expr, sp.Expr]]


def split_sums(part: Part) -> Parts:
    """Split late sums if rows span channels: such rows are as long as images."""
    program, given = part.program, part.given
    if not any(i.kind == Kind.FULL != i.access.kind for i in program.inputs):
        return (part,)
    waits = depths(program, given, _reduces)
    builder = Builder()
    builder.adopt(program.nodes())
    replaced: dict[Value, Value] = {}
    for value in waits:
        if not within_row(value) or value in given:
            continue
        terms = _terms(value, value.arg.symbol, builder, waits) if value.op == "sum" else None
        if terms and len(terms) > 1:
            replaced[value] = _joined(value, terms, builder)
    if not replaced:
        return (part,)
    found = rebuilt(program, replaced, given)
    fewer = _longest(depths(found, given, _reduces)) < _longest(waits)
    return part.having(found) if fewer else (part,)


def _reduces(value: Value) -> bool:
    return isinstance(value, Reduce)


def _longest(waits: Mapping[Value, int]) -> int:
    """Return the most sums that an element waits for. Sums that are only results keep no element waiting."""
    return max((depth for value, depth in waits.items() if value.kind == Kind.FULL), default=0)


def _terms(
    total: Reduce, expr: sp.Expr, builder: Builder, waits: Mapping[Value, int]
) -> Terms | None:
    """Return the terms of a sum as products (late, early), where the late factor leaves the sum.

    Return None if a late part is no such factor.
    """

    def depth(part: sp.Expr) -> int:
        return max((waits[builder.value(s)] for s in part.free_symbols), default=0)

    def varies(part: sp.Expr) -> bool:
        return bool(builder.kind(part) & ~total.kind)

    if depth(expr) < waits[total] - 1:
        return [_coefficient(expr, builder)] if varies(expr) else None
    if expr.is_Symbol:
        value = builder.value(expr)
        return _terms(total, value.expr, builder, waits) if isinstance(value, Map) else None
    found: Terms = []
    if expr.is_Add:
        for part in expr.args:
            terms = _terms(total, part, builder, waits)
            if terms is None:
                return None
            found += terms
        return found
    if not expr.is_Mul:
        return None
    outside = [f for f in expr.args if not varies(f)]
    inside = [f for f in expr.args if varies(f)]
    late = [f for f in inside if depth(f) >= waits[total] - 1]
    if len(late) > 1 or not inside:
        return None
    number, early = _coefficient(sp.Mul(*(f for f in inside if f not in late)), builder)
    terms = _terms(total, late[0], builder, waits) if late else [(sp.Integer(1), sp.Integer(1))]
    return terms and [(sp.Mul(number, factor, *outside), early * part) for factor, part in terms]


def _coefficient(expr: sp.Expr, builder: Builder) -> tuple[sp.Expr, sp.Expr]:
    """Return the numeric coefficient of a product and the rest, also if the product is a node."""
    number, rest = expr.as_coeff_Mul()
    value = builder.value(rest) if rest.is_Symbol else None
    if isinstance(value, Map):
        inner, below = value.expr.as_coeff_Mul()
        if inner != 1:
            return number * inner, below
    return number, rest


def _joined(total: Reduce, terms: Terms, builder: Builder) -> Value:
    """Return the total, assembled from the sums of its terms."""
    by: dict[sp.Expr, list[sp.Expr]] = {}
    for late, early in terms:
        by.setdefault(late, []).append(early)
    parts = []
    for number, (late, early) in enumerate(by.items(), 1):
        name = f"{total.name}_{number}"
        term = builder.map(f"{name}_term", sp.Add(*early), f"of {total.name}")
        parts.append(late * builder.reduce(name, "sum", term, total.kind).symbol)
    return builder.map(f"{total.name}_joined", sp.Add(*parts), "each sum apart: none waits")
