"""Finds the shape of a step's value from its formula: the value itself may be a constant without shape.

For rows of one element, x - mean(x) is 0, and so is softmax's derivative. Their shape is still that of x.
"""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp

from fusegen import atoms
from fusegen.atoms.constants import parts
from fusegen.program import Kind, Outline, kind_of_formula, kind_of_outline
from fusegen.spec.model import Step

__all__ = ["kind_of_outline", "names_reduced", "outline_after", "varies"]

_REDUCTIONS = (*atoms.ROW_FUNCTIONS, atoms.Total)


def varies(expr: sp.Expr, x: sp.Symbol, whole: Kind, kind: Callable[[sp.Symbol], Kind]) -> Kind:
    """Return the axes of a step's formula: those of x without those that it reduces.

    Args:
        expr: the formula.
        x: the symbol of the activation in it.
        whole: the axes of the activation.
        kind: returns the axes of every other symbol.
    """

    found = kind_of_formula(expr, lambda symbol: whole if symbol == x else kind(symbol))
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
