"""Exchanges the axes of a program: what its columns were are its rows, and the reverse.

A sum over the columns is then one over the rows, which kernels add up over the grid, and the result is known
once for each column.
"""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from fusegen.program.access import Access
from fusegen.program.builder import Builder
from fusegen.program.ir import Input, Map, Outline, Output, Program, Reduce, Take, Value
from fusegen.program.kind import Kind

__all__ = ["exchanged", "exchanged_kind", "exchanges"]

_OUTLINES: dict[Outline, Outline] = {"row": "col", "keepdim": "col_keepdim"}
#: What a sum may run over: the columns, which will be the rows, or all elements.
_SUMMED = (Kind.COL, Kind.FULL)
_EXTENTS = {"cols": "rows", "rows": "cols"}


def exchanged_kind(kind: Kind) -> Kind:
    """Return a kind with rows for columns, and the reverse."""
    axes = {Kind.ROW: Kind.COL, Kind.COL: Kind.ROW}
    found = Kind.SCALAR
    for axis in kind:
        found |= axes.get(axis, axis)
    return found


def exchanges(program: Program) -> bool:
    """Return whether a program still is one that kernels can compute after `exchanged`.

    Only sums run over rows: no maximum, and no element of a row is taken. Columns have no numbers then.
    """
    return not any(
        isinstance(value, Take)
        or (isinstance(value, Reduce) and (value.op != "sum" or value.axes not in _SUMMED))
        or (isinstance(value, Input) and (value.integer or value.source == "index"))
        for value in (*program.inputs, *program.nodes())
    )


def exchanged(program: Program) -> Program:
    """Return a program with its columns as rows, and its rows as columns.

    Args:
        program: a forward pass that `exchanges`, without parts of rows.
    """
    builder = Builder()
    made: dict[Value, Value] = {}
    for source in program.inputs:
        made[source] = _input(builder, source)
    for value in program.nodes():
        if value not in made:
            made[value] = _value(builder, value, made)
    outputs = {
        name: Output(
            made[output.value],
            _like(made, output.like),
            _OUTLINES.get(output.outline, output.outline),
            output.float32,
        )
        for name, output in program.outputs.items()
    }
    inputs = tuple(own for source in program.inputs if isinstance(own := made[source], Input))
    saved = tuple(made[value] for value in program.saved)
    return replace(program, inputs=inputs, outputs=outputs, saved=saved)


def _like(made: dict[Value, Value], source: Input) -> Input:
    """Return the input that stands for another."""
    found = made[source]
    assert isinstance(found, Input)
    return found


def _input(builder: Builder, source: Input) -> Input:
    """Return an input with its axes exchanged."""
    if source.source == "extent":
        return builder.extent(_EXTENTS.get(source.name, source.name))
    access: Access = replace(source.access, kind=exchanged_kind(source.access.kind))
    own = replace(source, kind=exchanged_kind(source.kind), access=access)
    builder.adopt([own])
    return own


def _value(builder: Builder, value: Value, made: dict[Value, Value]) -> Value:
    """Return a value of other arguments."""
    if isinstance(value, Input):
        return _input(builder, value)
    kind = exchanged_kind(value.kind)
    if isinstance(value, Map):
        symbols: dict[sp.Symbol, sp.Symbol] = {a.symbol: made[a].symbol for a in value.args}
        args = sorted((made[a] for a in value.args), key=lambda own: own.name)
        own: Value = replace(value, kind=kind, expr=value.expr.xreplace(symbols), args=tuple(args))
    else:
        assert isinstance(value, Reduce)
        own = replace(value, kind=kind, arg=made[value.arg])
    builder.adopt([own])
    return own
