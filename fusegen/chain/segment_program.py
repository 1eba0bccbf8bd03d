"""Turns the steps of a segment into the program of their forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
    reduced_already,
)
from fusegen.chain.cut_into_segments import Span
from fusegen.chain.layout_of_steps import reduces
from fusegen.chain.operands import SegmentOperand
from fusegen.chain.outline import kind_of_outline, outline_after, varies
from fusegen.program import SECOND, Input, Kind, Outline, Output, Program, Value, topological
from fusegen.program.builder import Builder
from fusegen.program.from_formula import formula_value
from fusegen.program.ranges import simplify
from fusegen.spec.model import INPUT, Ref, Spec, Step

#: The name of an input with the activation's shape, needed if x is smaller. No kernel reads it.
SHAPE = "shape_"

#: The symbols of a value's two halves.
Symbols = tuple[sp.Symbol, sp.Symbol]


def forward_program(
    spec: Spec,
    name: str,
    span: Span,
    steps: Sequence[Step],
    operands: Sequence[SegmentOperand],
    streams: int,
) -> Program:
    """Return the program of those steps of a span that a mode has.

    Its inputs are x and the operands that the steps name. Its outputs are "y" and the values that later spans
    use. In training it saves the values that running averages follow, in the order of `tracked`.
    """
    layout = span.layout
    builder = Builder(streams)
    whole, second = _activation(builder, span)
    training = name.endswith("_train")
    named = {n for step in steps for n in _tensors_of(step, training=training)}
    for operand in operands:
        if operand.handed or operand.name in named:
            per_channel = operand.kind is Kind.CHANNEL
            kind = layout.channel_kind if per_channel else operand.kind
            spread = per_channel and layout.spreads
            moves = operand.differentiable
            if operand.halves:
                builder.halves(
                    operand.code,
                    kind,
                    differentiable=moves,
                    per_channel=spread,
                    float32=operand.float32,
                )
                continue
            builder.input(
                operand.code,
                kind,
                differentiable=moves,
                per_channel=spread,
                integer=operand.integer,
                float32=operand.float32,
            )
    for argument in spec.arguments:
        if argument.type == "float" and any(argument.name in _arguments_of(s) for s in steps):
            builder.input(spec.code(argument.name), Kind.SCALAR, "attribute")
    start = builder.value(sp.Symbol("x", real=True))
    values = _run(spec, builder, span, (start, second), steps, training=training)
    outputs: dict[str, Output] = {}
    for label, (first, other, outline) in values.items():
        wide = label in _of_float32(spec, span)
        if wide and outline == "like":
            raise _not_reduced(spec, span, label)
        if other is not None:
            assert second is not None
            outputs |= {label: Output(first, whole), f"{label}{SECOND}": Output(other, second)}
            continue
        half = second is not None and outline == "like"
        outputs[label] = Output(first, whole, "half" if half else outline, float32=wide)
    tensors: list[Input] = [i for i in builder.inputs if i.source == "tensor"]
    rest = [i for i in builder.inputs if i.source != "tensor"]
    followed = tuple(builder.called[n] for n in tracked(spec, steps)) if training else ()
    return simplify(Program(name, (*tensors, *rest), outputs, followed))


def _of_float32(spec: Spec, span: Span) -> set[str]:
    """Return the outputs of a span that are of float32 where x has 16 bits, as its program names them."""
    last = {"y"} if span.steps[-1].label in spec.float32 else set()
    return last | {spec.code(label) for label in spec.float32.intersection(span.returned)}


def _not_reduced(spec: Spec, span: Span, name: str) -> SpecError:
    """Return the error of an output of float32 with a number for each element."""
    codes = {"y": span.steps[-1], **{spec.code(step.label): step for step in span.steps[:-1]}}
    step = codes[name]
    message = (
        f"{step.label} has a number for each element, which is of x's dtype: only values with one number a "
        "row, or one number, are returned with `dtype: float32`; leave it out"
    )
    return SpecError(message, spec.path, step.line)


def tracked(spec: Spec, steps: Sequence[Step]) -> list[str]:
    """Return the names of the values that the running averages of some steps follow in training."""
    return [f"{spec.code(s.label)}_{part}" for s in steps if s.op for part in s.op.tracked.values()]


def _activation(builder: Builder, span: Span) -> tuple[Input, Input | None]:
    """Return the activation or its two halves as inputs.

    If x is smaller, return an input for the shape only.
    """
    if span.layout.halved:
        return builder.halves("x", Kind.FULL)
    if span.broadcast:
        return builder.input(SHAPE, Kind.FULL, differentiable=False), None
    return builder.input("x", Kind.FULL), None


def _run(
    spec: Spec,
    builder: Builder,
    span: Span,
    halves: tuple[Value, Value | None],
    steps: Sequence[Step],
    *,
    training: bool,
) -> dict[str, tuple[Value, Value | None, Outline]]:
    """Return the value after the steps, as "y", and those that later spans use, each with its shape.

    A value of two halves has both of them, any other one and None.

    Args:
        spec: the spec.
        builder: where the nodes are made.
        span: the span of the steps.
        halves: the activation and None, or its two halves. The second half goes through the same steps, up to
            a gate, which takes both.
        steps: the steps that the mode has. The name of any other step stands for the value before it.
        training: the mode.

    Raises:
        SpecError: a step needs dims that an earlier one has reduced.
    """
    value, second = halves
    outline: Outline = "keepdim" if span.broadcast else "like"
    named = {n: _handed(builder, _named(spec, n)) for n in span.handed}
    named.setdefault(INPUT, NamedValue(value, kind_of_outline(outline), second))
    own = {step.label for step in steps}
    found: dict[str, tuple[Value, Value | None, Outline]] = {}
    for step in span.steps:
        if step.label in own:
            axes = kind_of_outline(outline)
            apply = partial(
                _apply, spec, builder, step, outline=outline, named=named, training=training
            )
            both = (value, second or value)
            if span.paired:
                (value, kind), second = apply(value, both=both), None
            else:
                value, kind = apply(value, second=second)
            if outline in ("row", "scalar") and (kind not in axes or reduces(step)):
                raise reduced_already(spec, step)
            after = outline_after(step, kind, outline)
            if span.paired and after == "like":
                second, _ = apply(both[1], both=both, ending=SECOND)
            elif step.halves:
                second = None
            elif second is not None:
                second, _ = apply(second, ending=SECOND)
            outline = after
        named[step.label] = NamedValue(value, kind_of_outline(outline), second)
        if step.label in span.returned:
            found[spec.code(step.label)] = value, second, outline
    return {"y": (value, second, outline), **found}


def _handed(builder: Builder, symbol: sp.Symbol) -> NamedValue:
    """Return a value that an earlier segment hands on."""
    first, second = (builder.value(half) for half in _halves(builder, symbol))
    return NamedValue(first, first.kind, second if second is not first else None)


def _halves(builder: Builder, symbol: sp.Symbol) -> Symbols:
    """Return the symbols of an input's halves, or its own symbol twice if it has none."""
    second = sp.Symbol(f"{symbol}{SECOND}", real=True)
    return symbol, second if builder.knows(second) else symbol


def _symbols(named: NamedValue) -> Symbols:
    """Return the symbols of a value's halves, or its own symbol twice if it has none."""
    return _symbols_of((named.value, named.second or named.value))


def _symbols_of(both: tuple[Value, Value]) -> Symbols:
    return both[0].symbol, both[1].symbol


def _tensors_of(step: Step, *, training: bool) -> list[str]:
    """Return the names of the tensors that a step reads in a mode."""
    idle = step.op.tracked if training and step.op else ()
    held = [attribute for name, attribute in step.state.items() if name not in idle]
    return [f"{step.label}_{attribute}" for attribute in held] + [*step.tensors]


def _arguments_of(step: Step) -> set[str]:
    """Return the arguments that a step's value depends on; a `momentum` affects only its running averages."""
    values = {**step.operands, **step.attributes}
    if step.op and step.op.tracked:
        del values["momentum"]
    return {v.name for v in values.values() if isinstance(v, Ref) and v.is_argument}


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


def _apply(
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
    return _value(builder, label, (formula, own.note), x, (gone, kind)), kind


def _inline_formula(
    spec: Spec,
    builder: Builder,
    step: Step,
    x: Value,
    both: tuple[Value, Value] | None,
    named: Mapping[str, NamedValue],
) -> _Formula:
    """Return an inline formula, over the spec's names; see `_apply`."""
    assert step.formula is not None
    known = {name: _halves(builder, _named(spec, name)) for name in step.operands}
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
    """Return the formula of an op, over the symbols of its operands' values; see `_apply`.

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
            bound[name] = _halves(builder, _named(spec, given.name))
    for name, attribute in step.state.items():
        whole = sp.Symbol(f"{spec.code(step.label)}_{attribute}", real=True)
        bound[name] = _halves(builder, whole)
    if step.halves:
        assert second is not None
        bound[step.halves] = second.symbol, second.symbol
    attributes: Mapping[str, object] = {
        key: _named(spec, value.name) if isinstance(value, Ref) else value
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


def _named(spec: Spec, name: str) -> sp.Symbol:
    """Return the symbol of an argument, an operand or a value that is handed on."""
    return sp.Symbol(spec.code(name), real=True)
