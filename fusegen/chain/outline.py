"""Finds the shape of a step's value from its formula: the value itself may be a constant without shape.

For rows of one element, x - mean(x) is 0, and so is softmax's derivative. Their shape is still that of x.
"""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp

from fusegen import atoms
from fusegen.atoms.constants import parts
from fusegen.program import Kind, Outline
from fusegen.spec.model import Step

__all__ = ["kind_of_outline", "names_reduced", "outline_after", "varies"]

_REDUCTIONS = (*atoms.ROW_FUNCTIONS, atoms.Total)
_COLUMN_SUMS = (atoms.ColumnSum, atoms.SampleSum)


def kind_of_outline(outline: Outline) -> Kind:
    """Return the axes of a value with this outline, whether or not it varies along them."""
    return {"like": Kind.FULL, "half": Kind.FULL, "scalar": Kind.SCALAR}.get(outline, Kind.ROW)


def varies(expr: sp.Expr, x: sp.Symbol, whole: Kind, kind: Callable[[sp.Symbol], Kind]) -> Kind:
    """Return the axes of a step's formula: those of x without those that it reduces.

    Args:
        expr: the formula.
        x: the symbol of the activation in it.
        whole: the axes of the activation.
        kind: returns the axes of every other symbol.
    """

    def walk(part: sp.Basic) -> Kind:
        if isinstance(part, atoms.Total):
            return Kind.SCALAR
        if isinstance(part, atoms.Let):
            return walk(part.value)
        if part.is_Symbol:
            return whole if part == x else kind(part)
        inner = Kind.SCALAR
        for arg in part.args:
            inner |= walk(arg)
        if isinstance(part, atoms.ROW_FUNCTIONS):
            return (inner | Kind.ROW) & ~Kind.COL
        return inner & ~Kind.ROW if isinstance(part, _COLUMN_SUMS) else inner

    found = walk(expr)
    reduces = any(isinstance(part, _REDUCTIONS) for part in parts(expr))
    return found if reduces else found | whole


def names_reduced(formula: sp.Basic) -> list[str]:
    """Return the names in what a formula reduces: a row is as long as their values."""
    reduced = (part for part in parts(formula) if isinstance(part, atoms.ROW_FUNCTIONS))
    symbols = {symbol for part in reduced for symbol in part.free_symbols}
    extents = {atoms.COLS, atoms.ROWS}
    return sorted(str(symbol) for symbol in symbols - extents if symbol.is_real)


def outline_after(step: Step, kind: Kind, before: Outline) -> Outline:
    """Return the shape of a step's value, from the axes of its formula and the shape before the step."""
    if Kind.COL in kind:
        return "like"
    if Kind.ROW not in kind:
        return "scalar"
    drops = step.op is not None and ("keepdim" in step.op.attributes or step.op.over == "channel")
    if not drops:
        return "keepdim" if before == "like" else before
    return "keepdim" if step.attributes.get("keepdim") else "row"
