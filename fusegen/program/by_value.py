"""Leaves out what only derivatives see: the second argument of `straight_through`."""

from __future__ import annotations

from dataclasses import replace

from fusegen.atoms import straight_through
from fusegen.program.ir import Map, Program, Value
from fusegen.program.rebuild import rebuilt

__all__ = ["by_value"]


def by_value(program: Program) -> Program:
    """Return a program that computes the same values, after its derivatives were taken."""
    replaced: dict[Value, Value] = {}
    for value in program.nodes():
        if isinstance(value, Map) and value.expr.has(straight_through):
            expr = value.expr.replace(straight_through, lambda shown, _: shown)
            args = tuple(a for a in value.args if a.symbol in expr.free_symbols)
            replaced[value] = replace(value, expr=expr, args=args)
    return rebuilt(program, replaced, ()) if replaced else program
