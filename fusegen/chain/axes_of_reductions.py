"""Finds the axes that are gone from what a step reduces, because an earlier step has reduced them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import NamedTuple

import sympy as sp

from fusegen.atoms import COLS, RowMax, RowShift, RowSum, Total
from fusegen.atoms.constants import parts, problem
from fusegen.base.errors import SpecError
from fusegen.chain.outline import kind_of_outline, varies
from fusegen.program import Kind, Outline, Value
from fusegen.program.builder import Builder
from fusegen.spec.model import Spec, Step

__all__ = ["NamedValue", "gone_axes", "kinds_of", "reduced_already"]

_REDUCTIONS = (RowMax, RowShift, RowSum, Total)


class NamedValue(NamedTuple):
    """The value of an earlier step, with its axes, even if it is constant along them, and its shape.

    If it is computed part by part, `parts` has all of them; otherwise the value alone.
    """

    parts: tuple[Value, ...]
    axes: Kind
    outline: Outline


def kinds_of(
    builder: Builder,
    symbols: Mapping[sp.Symbol, sp.Symbol] = MappingProxyType({}),
    axes: Mapping[str, Kind] = MappingProxyType({}),
) -> Callable[[sp.Symbol], Kind]:
    """Return a function from symbols to kinds.

    COLS and other symbols that have no value yet are single numbers.

    Args:
        builder: knows the values.
        symbols: the symbol of the value that a formula's symbol stands for, where it is another.
        axes: the axes of named values, even if they are constant along them.
    """

    def kind_of(symbol: sp.Symbol) -> Kind:
        if str(symbol) in axes and symbol in symbols:
            return axes[str(symbol)]
        own = symbols.get(symbol, symbol)
        return builder.value(own).kind if builder.knows(own) else Kind.SCALAR

    return kind_of


def gone_axes(
    spec: Spec,
    kinds: Callable[[sp.Symbol], Kind],
    step: Step,
    formula: tuple[sp.Expr, sp.Symbol],
    outline: Outline,
) -> Kind:
    """Return the axes that are gone from what a step reduces, because an earlier step reduced them.

    Axes that an operand adds, such as the target of a loss, are not gone.

    Args:
        spec: the spec.
        kinds: returns the axes of a symbol.
        step: the step.
        formula: its formula, and the symbol of the activation in it.
        outline: the shape of the activation.

    Raises:
        SpecError: the step reduces values both with and without columns, or values with columns against rows
            that have dropped them, or divides by 0 for one element: the variance of one number is NaN.
    """
    (expr, x), is_formula = formula, step.op is None
    axes = kind_of_outline(outline) if step.takes_x else Kind.SCALAR
    if axes == Kind.FULL and not is_formula:
        return Kind.SCALAR
    reduced = [p.args[0] for p in parts(expr) if isinstance(p, _REDUCTIONS)]
    found = [
        varies(inner, x, axes if x in inner.free_symbols else Kind.SCALAR, kinds)
        for inner in reduced
    ]
    gone = Kind.FULL & ~reduce(or_, found, axes)
    if is_formula and found and not any(Kind.COL in kind for kind in found):
        gone |= Kind.COL  # it reduces named values, which have fewer axes than x
    if Kind.COL in axes and not is_formula:
        return gone
    if len({Kind.COL in kind for kind in found}) > 1:
        message = (
            f"{step.label}: it reduces rows that an earlier step has reduced, and rows that an operand "
            "makes whole again; make two steps of it"
        )
        raise SpecError(message, spec.path, step.line)
    if outline == "row" and Kind.COL not in gone:
        raise reduced_already(spec, step)
    if Kind.COL in gone and problem(expr.xreplace({COLS: sp.Integer(1)})):
        message = (
            f"{step.label}: an earlier step has reduced the row to one element, of which "
            f"{step.text[:60]} is not finite; leave the step out, or for var and std give `correction: 0`"
        )
        raise SpecError(message, spec.path, step.line)
    return gone


def reduced_already(spec: Spec, step: Step) -> SpecError:
    """Return the error for a step that needs dims that an earlier one has reduced."""
    return SpecError(
        f"{step.label}: an earlier step has reduced the columns; reduce with keepdim: true to go "
        "on with them, or take operands that have none",
        spec.path,
        step.line,
    )
