"""The value of one step of a segment: its formula, over the values before it and the tensors it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import sympy as sp

from fusegen import ops
from fusegen.atoms import (
    HALVES,
    Partition,
    PartOf,
    Rng,
    absolute,
    at_part,
    infinity,
    undefined,
    where,
)
from fusegen.atoms.constants import number, parts
from fusegen.base.errors import SpecError
from fusegen.chain.axes_of_reductions import (
    NamedValue,
    gone_axes,
    kinds_of,
)
from fusegen.chain.outline import kind_of_outline, varies
from fusegen.program import Input, Kind, Outline, Value, ending, topological
from fusegen.program.builder import Builder
from fusegen.program.from_formula import formula_value
from fusegen.spec.formula.as_written import apart
from fusegen.spec.model import Ref, Spec, Step

__all__ = ["named_symbol", "parts_of", "step_value"]

#: The symbols of a value's parts, or of the value alone.
Symbols = tuple[sp.Symbol, ...]


class _Formula(NamedTuple):
    """The formula of a step.

    Args:
        expr: the formula.
        x: the symbol of the activation in it.
        values: the parts of what its symbols stand for, or one symbol for what has none. Other symbols stand
            for themselves.
        note: the comment of its node.
    """

    expr: sp.Expr
    x: sp.Symbol
    values: Mapping[sp.Symbol, Symbols]
    note: str


def step_value(
    spec: Spec,
    builder: Builder,
    step: Step,
    before: Sequence[Value],
    partition: Partition = HALVES,
    *,
    outline: Outline,
    named: Mapping[str, NamedValue],
    training: bool,
    joint: bool = False,
    place: int = 0,
) -> tuple[Value, Kind]:
    """Return the value of one step, and its axes, even if it is constant along them.

    Args:
        spec: the spec.
        builder: where the nodes are made.
        step: the step.
        before: the activation before it, or its parts.
        partition: how a row is cut into parts.
        outline: the shape of the activation, which has axes along which it may be constant.
        named: the values of the steps before it, by their labels.
        training: the mode.
        joint: whether every value is computed part by part, each from all parts of what it takes. Otherwise
            only one step takes several parts.
        place: the number of the part.

    Raises:
        SpecError: the rows are reduced to one element, and the step is not defined for that, or needs random
            numbers or the parts of a row.
    """
    x = before[min(place, len(before) - 1)]
    if step.op is None:
        own = _inline_formula(spec, builder, step, before if joint else (x,), named)
    else:
        own = _formula_of_op(
            spec, builder, step, before, named, place, joint=joint, training=training
        )
        if own.expr.has(Rng) and kind_of_outline(outline) != Kind.FULL:
            raise SpecError(
                f"{step.label}: an earlier step has reduced the columns, and {step.op.name} draws a number "
                "for each element of a whole activation; put it before that step",
                spec.path,
                step.line,
            )
    replaced = {symbol: _at(symbols, place) for symbol, symbols in own.values.items()}
    kinds = kinds_of(builder, replaced, {name: named[name].axes for name in step.mentions})
    axes = kind_of_outline(outline) if step.takes_x else Kind.SCALAR
    # As written: x may be the value of a named step too, and x / a would lose both.
    written = own.expr, own.x
    if not joint:
        formula = own.expr.xreplace(_apart(replaced))
    else:
        _check_parts(spec, step, written, axes, kinds)
        count = partition.parts
        at = [
            _apart({symbol: _at(symbols, n) for symbol, symbols in own.values.items()})
            for n in range(count)
        ]
        filled = {symbol: [part[symbol] for part in at] for symbol in own.values}
        formula = at_part(own.expr, place, filled, count)
        written = at_part(own.expr, place, count=count), own.x
    gone = gone_axes(spec, kinds, step, written, outline)
    kind = varies(*written, axes, kinds)
    label = f"{spec.code(step.label)}{ending(place)}"
    if step.indexes:  # 0 in a row of one element, also if that is NaN
        return formula_value(builder, label, formula, own.note, gone=gone), kind
    return _value(builder, label, (formula, own.note), x, (gone, kind)), kind


def _inline_formula(
    spec: Spec,
    builder: Builder,
    step: Step,
    x: Sequence[Value],
    named: Mapping[str, NamedValue],
) -> _Formula:
    """Return an inline formula, over the spec's names; see `step_value`."""
    assert step.formula is not None
    known = {name: parts_of(builder, named_symbol(spec, name)) for name in step.operands}
    known |= {name: _symbols(named[name].parts) for name in step.mentions}
    known["x"] = _symbols(x)
    values = {sp.Symbol(name, real=True): symbols for name, symbols in known.items()}
    return _Formula(step.formula, sp.Symbol("x", real=True), values, step.text)


def _formula_of_op(
    spec: Spec,
    builder: Builder,
    step: Step,
    before: Sequence[Value],
    named: Mapping[str, NamedValue],
    place: int,
    *,
    joint: bool,
    training: bool,
) -> _Formula:
    """Return the formula of an op, over the symbols of its operands' values; see `step_value`.

    If every value is computed part by part, it is over symbols of its own: a value may be the first part of
    one operand and the second part of another.
    """
    assert step.op is not None
    bound: dict[str, Symbols] = {}
    numbers: dict[str, sp.Expr] = {}
    for name, given in step.operands.items():
        if not isinstance(given, Ref):
            numbers[name] = number(given)
        elif given.is_step:
            bound[name] = _symbols(named[given.name].parts)
        else:
            bound[name] = parts_of(builder, named_symbol(spec, given.name))
    for name, attribute in step.state.items():
        whole = sp.Symbol(f"{spec.code(step.label)}_{attribute}", real=True)
        bound[name] = parts_of(builder, whole)
    bound |= {name: (part.symbol,) for name, part in zip(step.split, before[1:], strict=False)}
    attributes: Mapping[str, object] = {
        key: named_symbol(spec, value.name) if isinstance(value, Ref) else value
        for key, value in step.attributes.items()
    }
    start = before[min(place, len(before) - 1)].symbol
    slots = {name: _at(symbols, place) for name, symbols in bound.items()}
    slots = {name: apart(symbol, start) for name, symbol in slots.items()}
    values: dict[sp.Symbol, Symbols] = {}
    if joint:
        start, slots = sp.Dummy(real=True), {name: sp.Dummy(real=True) for name in bound}
        values = {start: _symbols(before)}
        values |= {slots[name]: symbols for name, symbols in bound.items()}
    expr = ops.call(step.op, start, {**slots, **numbers}, attributes, training=training)
    return _Formula(expr, start, values, f"{step.label}: {step.op.statement}")


def _check_parts(
    spec: Spec,
    step: Step,
    formula: tuple[sp.Expr, sp.Symbol],
    axes: Kind,
    kinds: Callable[[sp.Symbol], Kind],
) -> None:
    """Refuse a part of what does not vary along a row.

    Args:
        spec: the spec.
        step: the step.
        formula: its formula, and the symbol of the activation in it.
        axes: the axes of the activation.
        kinds: returns the axes of every other symbol.

    Raises:
        SpecError: the step takes one.
    """
    expr, x = formula
    for part in parts(expr):
        if isinstance(part, PartOf):
            inner = part.args[0]
            along = varies(inner, x, axes if x in inner.free_symbols else Kind.SCALAR, kinds)
            if Kind.COL not in along:
                message = (
                    f"{step.label}: it takes parts of a row, and an earlier step has reduced the "
                    "columns; put it before that step"
                )
                raise SpecError(message, spec.path, step.line)


def _value(
    builder: Builder, label: str, formula: tuple[sp.Expr, str], x: Value, axes: tuple[Kind, Kind]
) -> Value:
    """Return the value of a step's formula and note, from the axes that are gone and those that it has.

    In a row of one element, x - mean(x) is 0 for any finite x, and NaN otherwise.
    """
    (expr, note), (gone, kind) = formula, axes
    value = formula_value(builder, label, expr, note, gone=gone)
    if Kind.COL not in gone or x.symbol not in expr.free_symbols or x in topological([value]):
        return value
    if x.kind & ~kind:  # a sum over the rows: which of them is NaN is unknown
        return value
    return builder.map(
        label, value.symbol + where(absolute(x.symbol) < infinity, 0, undefined), note
    )


def parts_of(builder: Builder, symbol: sp.Symbol) -> Symbols:
    """Return the symbols of an input's parts, or its own symbol alone if it has none."""
    first = builder.value(symbol) if builder.knows(symbol) else None
    if not isinstance(first, Input):
        return (symbol,)
    return tuple(sp.Symbol(a.name, real=True) for a in first.access.parts(first.tensor))


def _at(symbols: Symbols, place: int) -> sp.Symbol:
    """Return the symbol of a part; what has fewer parts is the same in all others."""
    return symbols[min(place, len(symbols) - 1)]


def _apart(values: Mapping[sp.Symbol, sp.Symbol]) -> dict[sp.Symbol, sp.Expr]:
    """Return what symbols stand for, so that sympy finds no two of them equal: x - a is no 0 where a is x."""
    found: dict[sp.Symbol, sp.Expr] = {}
    for symbol, value in values.items():
        found[symbol] = reduce(apart, found.values(), value)
    return found


def _symbols(parts: Sequence[Value]) -> Symbols:
    return tuple(part.symbol for part in parts)


def named_symbol(spec: Spec, name: str) -> sp.Symbol:
    """Return the symbol of an argument, an operand or a value that is handed on."""
    return sp.Symbol(spec.code(name), real=True)
