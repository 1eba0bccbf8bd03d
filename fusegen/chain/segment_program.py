"""Turns the steps of a segment into the program of their forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import sympy as sp

from fusegen.base.errors import SpecError
from fusegen.chain.axes_of_reductions import (
    NamedValue,
    reduced_already,
)
from fusegen.chain.cut_into_segments import Span
from fusegen.chain.layout_of_steps import reduces
from fusegen.chain.operands import SegmentOperand
from fusegen.chain.outline import kind_of_outline, outline_after
from fusegen.chain.step_value import halves_of, named_symbol, step_value
from fusegen.program import SECOND, Input, Kind, Outline, Output, Program, Value
from fusegen.program.builder import Builder
from fusegen.program.ranges import simplify
from fusegen.spec.model import INPUT, Ref, Spec, Step

#: The name of an input with the activation's shape, needed if x is smaller. No kernel reads it.
SHAPE = "shape_"


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
            add = (
                builder.halves
                if operand.halves
                else partial(builder.input, integer=operand.integer)
            )
            add(
                operand.code,
                kind,
                differentiable=moves,
                per_channel=spread,
                float32=operand.float32,
            )
    for argument in spec.arguments:
        if argument.type == "float" and any(argument.name in _arguments_of(s) for s in steps):
            builder.input(spec.code(argument.name), Kind.SCALAR, "attribute")
    start = builder.value(sp.Symbol("x", real=True))
    values = _run(spec, builder, span, (start, second), steps, training=training)
    outputs: dict[str, Output] = {}
    of_float32 = _of_float32(spec, span)
    for label, (first, other, outline) in values.items():
        wide = label in of_float32
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
    last = {"y"} if span.steps[-1].label in spec.unrounded else set()
    return last | {spec.code(label) for label in spec.unrounded.intersection(span.returned)}


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
    named = {n: _handed(builder, named_symbol(spec, n)) for n in span.handed}
    named.setdefault(INPUT, NamedValue(value, kind_of_outline(outline), second))
    own = {step.label for step in steps}
    found: dict[str, tuple[Value, Value | None, Outline]] = {}
    for step in span.steps:
        if step.indexes and step is not span.steps[-1]:  # the next step goes on from other values
            if outline in ("row", "scalar"):
                raise reduced_already(spec, step)
            index, kind = step_value(
                spec, builder, step, value, outline=outline, named=named, training=training
            )
            found[spec.code(step.label)] = index, None, outline_after(step, kind, outline)
            continue
        if step.label in own:
            axes = kind_of_outline(outline)
            apply = partial(
                step_value, spec, builder, step, outline=outline, named=named, training=training
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
    first, second = (builder.value(half) for half in halves_of(builder, symbol))
    return NamedValue(first, first.kind, second if second is not first else None)


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
