"""The program of a chain with one op only, and its derivative."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import sympy as sp

from fusegen.atoms import HALVES, at_part
from fusegen.ops import Op, call
from fusegen.program import SECOND, WHOLE, Access, Kind, Outline, Output, Program
from fusegen.program.builder import Builder
from fusegen.program.calculus import vjp
from fusegen.program.from_formula import formula_value
from fusegen.program.ranges import simplify

__all__ = ["attributes_of", "backward_of", "program_of"]


def attributes_of(op: Op, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return an op's attributes: the given value, else the default, else the last dim for a dim.

    A number without a default stays a symbol.
    """
    attributes = {name: given.get(name, default) for name, default in op.attributes.items()}
    for name, value in attributes.items():
        if value is None:
            attributes[name] = -1 if name in op.dims else sp.Symbol(name, real=True)
    return attributes


def program_of(op: Op, given: Mapping[str, Any] | None = None) -> Program:
    """Return the program of an op.

    Args:
        op: the op.
        given: attributes, and numbers for operands. Optional operands without a gradient are
            left out if they are not given.
    """
    given = given or {}
    builder = Builder()
    x = builder.parts("x", Kind.FULL, HALVES)[0] if op.paired else builder.input("x", Kind.FULL)
    operands: dict[str, Any] = {}
    for name, kind in op.operands.items():
        if name in given:
            operands[name] = sp.sympify(given[name])
        elif not (name in op.optional and name in op.constant):
            classes = name == op.classes
            known = Kind.FULL if kind is None else kind
            wanted = Kind.ROW if classes else Kind.COL if name in op.of_channels else known
            moving = name not in op.constant
            partition = HALVES if op.paired and Kind.COL in wanted else WHOLE
            access = Access(name, wanted, partition, stored="int64" if classes else "x")
            operands[name] = builder.read(name, wanted, access, differentiable=moving)[0].symbol
    attributes = attributes_of(op, given)
    for name, value in attributes.items():
        annotation = str(inspect.signature(op.formula).parameters[name].annotation)
        if not annotation.startswith("float"):
            continue
        if isinstance(value, sp.Symbol):
            builder.input(name, Kind.SCALAR, "attribute")
        else:
            attributes[name] = float(value)
    formula = call(op, x.symbol, operands, attributes)
    if op.paired:
        return simplify(Program("forward", tuple(builder.inputs), _in_halves(builder, formula)))
    value = formula_value(builder, "y", formula)
    row: Outline = "keepdim" if attributes.get("keepdim") else "row"
    outlines: dict[Kind, Outline] = {Kind.FULL: "like", Kind.ROW: row, Kind.SCALAR: "scalar"}
    output = Output(value, x, outlines[value.kind])
    return simplify(Program("forward", tuple(builder.inputs), {"y": output}))


def _in_halves(builder: Builder, formula: sp.Expr) -> dict[str, Output]:
    """Return the two halves of a formula's value as outputs."""
    known = {value.name: value for value in builder.inputs}
    values = {
        first.symbol: (first.symbol, known[f"{name}{SECOND}"].symbol)
        for name, first in known.items()
        if f"{name}{SECOND}" in known
    }
    return {
        f"y{end}": Output(
            formula_value(builder, f"y{end}", at_part(formula, place, values)), known[f"x{end}"]
        )
        for place, end in enumerate(("", SECOND))
    }


def backward_of(program: Program) -> Program:
    """Return the gradients of a program."""
    return simplify(vjp(program, "backward"))
