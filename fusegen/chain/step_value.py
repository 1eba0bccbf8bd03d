"""The value of one step of a segment: its formula, over the values before it and the tensors it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import sympy as sp

from fusegen import ops
from fusegen.atoms import (
    HalfOf,
    Rng,
    absolute,
    at_half,
    infinity,
    undefined,
    where,
)
from fusegen.atoms.constants import number, parts, problem
from fusegen.base.errors import SpecError
from fusegen.chain.axes_of_reductions import (
    NamedValue,
    gone_axes,
    kinds_of,
)
from fusegen.chain.outline import kind_of_outline, varies
from fusegen.program import SECOND, Kind, Outline, Value, topological
from fusegen.program.builder import Builder
from fusegen.program.from_formula import formula_value
from fusegen.spec.model import Ref, Spec, Step

__all__ = ["halves_of", "named_symbol", "step_value"]

#: The symbols of a value's two halves.
Symbols = tuple[sp.Symbol, sp.Symbol]


class _Formula(NamedTuple):
    """The formula of a step.

    Args:
        expr: the formula.
        x: the symbol of the activation in it.
        values: both halves of what its symbols stand for; the same symbol twice for what is no half. Other
            symbols stand for themselves.
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
    x: Value,
    *,
    outline: Outline,
    named: Mapping[str, NamedValue],
    training: bool,
    second: Value | None = None,
    both: tuple[Value, Value] | None = None,
    ending: str = "",
) -> tuple[Value, Kind]:
    """Return the value of one step, and its axes, even if it is constant along them.

    Args:
        spec: the spec.
        builder: where the nodes are made.
        step: the step.
        x: the activation before it.
        outline: the shape of x, which has axes along which x may be constant.
        named: the values of the steps before it, by their labels.
        training: the mode.
        second: the second half, if x is the first and a gate takes both.
        both: both halves, if every value is computed as two halves and x is one of them.
        ending: the suffix of a half's names, if x is the second.

    Raises:
        SpecError: the rows are reduced to one element, and the step is not defined for that, or needs random
            numbers or the halves of a row.
    """
    place = int(ending == SECOND)
    if step.op is None:
        own = _inline_formula(spec, builder, step, x, both, named)
    else:
        own = _formula_of_op(spec, builder, step, x, second, both, named, place, training=training)
        if own.expr.has(Rng) and kind_of_outline(outline) != Kind.FULL:
            raise SpecError(
                f"{step.label}: an earlier step has reduced the columns, and {step.op.name} draws a number "
                "for each element of a whole activation; put it before that step",
                spec.path,
                step.line,
            )
    replaced = {symbol: symbols[place] for symbol, symbols in own.values.items()}
    kinds = kinds_of(builder, replaced, {name: named[name].axes for name in step.mentions})
    axes = kind_of_outline(outline) if step.takes_x else Kind.SCALAR
    # As written: x may be the value of a named step too, and x / a would lose both.
    written = own.expr, own.x
    if both is None:
        formula = own.expr.xreplace(replaced)
    else:
        _check_halves(spec, step, written, axes, kinds)
        formula = at_half(own.expr, place, own.values)
        written = at_half(own.expr, place), own.x
    gone = gone_axes(spec, kinds, step, written, outline)
    kind = varies(*written, axes, kinds)
    merged = step.op is None and len({*replaced.values()}) < len(replaced)
    if merged and (wrong := problem(formula)):
        message = f"{step.label}: two of its names are the same value, and then it has {wrong}"
        raise SpecError(message, spec.path, step.line)
    label = f"{spec.code(step.label)}{ending}"
    if step.indexes:  # 0 in a row of one element, also if that is NaN
        return formula_value(builder, label, formula, own.note, gone=gone), kind
    return _value(builder, label, (formula, own.note), x, (gone, kind)), kind


def _inline_formula(
    spec: Spec,
    builder: Builder,
    step: Step,
    x: Value,
    both: tuple[Value, Value] | None,
    named: Mapping[str, NamedValue],
) -> _Formula:
    """Return an inline formula, over the spec's names; see `step_value`."""
    assert step.formula is not None
    known = {name: halves_of(builder, named_symbol(spec, name)) for name in step.operands}
    known |= {name: _symbols(named[name]) for name in step.mentions}
    known["x"] = _symbols_of(both or (x, x))
    values = {sp.Symbol(name, real=True): symbols for name, symbols in known.items()}
    return _Formula(step.formula, sp.Symbol("x", real=True), values, step.text)


def _formula_of_op(
    spec: Spec,
    builder: Builder,
    step: Step,
    x: Value,
    second: Value | None,
    both: tuple[Value, Value] | None,
    named: Mapping[str, NamedValue],
    place: int,
    *,
    training: bool,
) -> _Formula:
    """Return the formula of an op, over the symbols of its operands' values; see `step_value`.

    If every value is computed as two halves, it is over symbols of its own: a value may be the first half of
    one operand and the second half of another.
    """
    assert step.op is not None
    bound: dict[str, Symbols] = {}
    numbers: dict[str, sp.Expr] = {}
    for name, given in step.operands.items():
        if not isinstance(given, Ref):
            numbers[name] = number(given)
        elif given.is_step:
            bound[name] = _symbols(named[given.name])
        else:
            bound[name] = halves_of(builder, named_symbol(spec, given.name))
    for name, attribute in step.state.items():
        whole = sp.Symbol(f"{spec.code(step.label)}_{attribute}", real=True)
        bound[name] = halves_of(builder, whole)
    if step.halves:
        assert second is not None
        bound[step.halves] = second.symbol, second.symbol
    attributes: Mapping[str, object] = {
        key: named_symbol(spec, value.name) if isinstance(value, Ref) else value
        for key, value in step.attributes.items()
    }
    start, slots = x.symbol, {name: symbols[place] for name, symbols in bound.items()}
    values: dict[sp.Symbol, Symbols] = {}
    if both is not None:
        start, slots = sp.Dummy(real=True), {name: sp.Dummy(real=True) for name in bound}
        values = {start: _symbols_of(both)}
        values |= {slots[name]: symbols for name, symbols in bound.items()}
    expr = ops.call(step.op, start, {**slots, **numbers}, attributes, training=training)
    return _Formula(expr, start, values, f"{step.label}: {step.op.statement}")


def _check_halves(
    spec: Spec,
    step: Step,
    formula: tuple[sp.Expr, sp.Symbol],
    axes: Kind,
    kinds: Callable[[sp.Symbol], Kind],
) -> None:
    """Refuse a half of what does not vary along a row.

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
        if isinstance(part, HalfOf):
            inner = part.args[0]
            along = varies(inner, x, axes if x in inner.free_symbols else Kind.SCALAR, kinds)
            if Kind.COL not in along:
                message = (
                    f"{step.label}: it takes the halves of a row, and an earlier step has reduced the "
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


def halves_of(builder: Builder, symbol: sp.Symbol) -> Symbols:
    """Return the symbols of an input's halves, or its own symbol twice if it has none."""
    second = sp.Symbol(f"{symbol}{SECOND}", real=True)
    return symbol, second if builder.knows(second) else symbol


def _symbols(named: NamedValue) -> Symbols:
    """Return the symbols of a value's halves, or its own symbol twice if it has none."""
    return _symbols_of((named.value, named.second or named.value))


def _symbols_of(both: tuple[Value, Value]) -> Symbols:
    return both[0].symbol, both[1].symbol


def named_symbol(spec: Spec, name: str) -> sp.Symbol:
    """Return the symbol of an argument, an operand or a value that is handed on."""
    return sp.Symbol(spec.code(name), real=True)
