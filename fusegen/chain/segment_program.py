"""Turns the steps of a segment into the program of their forward pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import sympy as sp

from fusegen.atoms import detach
from fusegen.base.errors import SpecError
from fusegen.chain.axes_of_reductions import (
    NamedValue,
    reduced_already,
)
from fusegen.chain.layout_of_steps import reduces
from fusegen.chain.operands import SegmentOperand
from fusegen.chain.outline import kind_of_outline, outline_after
from fusegen.chain.span import Span
from fusegen.chain.step_value import named_symbol, parts_of, step_value
from fusegen.program import Access, Input, Kind, Outline, Output, Program, Value, ending
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
    start = _activation(builder, span)
    training = name.endswith("_train")
    named = {n for step in steps for n in _tensors_of(step, training=training)}
    for operand in operands:
        if operand.handed or operand.name in named:
            builder.read(
                operand.code,
                layout.kind_of(operand.kind),
                operand.access(layout),
                differentiable=operand.differentiable,
            )
    for argument in spec.arguments:
        if argument.type == "float" and any(argument.name in _arguments_of(s) for s in steps):
            builder.input(spec.code(argument.name), Kind.SCALAR, "attribute")
    values = _run(spec, builder, span, steps, training=training)
    outputs: dict[str, Output] = {}
    of_float32 = _of_float32(spec, span)
    still = _codes(spec, span, span.still)
    for label, (parts, outline) in values.items():
        if label in still:
            parts = tuple(builder.map(f"{part.name}_alone", detach(part.symbol)) for part in parts)
        wide = label in of_float32
        if wide and outline == "like":
            raise _not_reduced(spec, span, label)
        if len(parts) > 1:
            pairs = zip(parts, start, strict=True)
            outputs |= {f"{label}{ending(n)}": Output(*pair) for n, pair in enumerate(pairs)}
            continue
        half = len(start) > 1 and outline == "like"
        outputs[label] = Output(parts[0], start[0], "half" if half else outline, float32=wide)
    tensors: list[Input] = [i for i in builder.inputs if i.source == "tensor"]
    rest = [i for i in builder.inputs if i.source != "tensor"]
    followed = tuple(builder.called[n] for n in tracked(spec, steps)) if training else ()
    return simplify(Program(name, (*tensors, *rest), outputs, followed))


def _of_float32(spec: Spec, span: Span) -> set[str]:
    """Return the outputs of a span that are of float32 where x has 16 bits, as its program names them."""
    return _codes(spec, span, spec.unrounded)


def _codes(spec: Spec, span: Span, labels: Collection[str]) -> set[str]:
    """Return those outputs of a span that some steps compute, as its program names them."""
    last = {"y"} if span.steps[-1].label in labels else set()
    return last | {spec.code(label) for label in span.returned if label in labels}


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


def _activation(builder: Builder, span: Span) -> tuple[Input, ...]:
    """Return the activation or its parts as inputs.

    If x is smaller, return an input for the shape only.
    """
    if span.layout.halved:
        return builder.parts("x", Kind.FULL, span.layout.partition)
    if span.broadcast:
        return builder.read(SHAPE, Kind.FULL, Access(SHAPE, Kind.FULL), differentiable=False)
    return (builder.input("x", Kind.FULL),)


def _run(
    spec: Spec, builder: Builder, span: Span, steps: Sequence[Step], *, training: bool
) -> dict[str, tuple[tuple[Value, ...], Outline]]:
    """Return the value after the steps, as "y", and those that later spans use, each with its shape.

    A value that is computed part by part has all of its parts. If one step takes all parts of x, they go
    through the same steps up to that one.

    Args:
        spec: the spec.
        builder: where the nodes are made.
        span: the span of the steps.
        steps: the steps that the mode has. The name of any other step stands for the value before it.
        training: the mode.

    Raises:
        SpecError: a step needs dims that an earlier one has reduced.
    """
    value = tuple(map(builder.value, parts_of(builder, sp.Symbol("x", real=True))))
    outline: Outline = "keepdim" if span.broadcast and not span.expanded else "like"
    named = {n: _handed(builder, named_symbol(spec, n)) for n in span.handed}
    named.setdefault(INPUT, NamedValue(value, kind_of_outline(outline), outline))
    own = {step.label for step in steps}
    found: dict[str, tuple[tuple[Value, ...], Outline]] = {}
    for step in span.steps:
        start = _start(step, outline, named)
        reached = outline if step.takes_x else start
        apply = partial(
            step_value, spec, builder, step, outline=reached, named=named, training=training
        )
        if step.indexes and step is not span.steps[-1]:  # the next step goes on from other values
            if outline in ("row", "scalar"):
                raise reduced_already(spec, step)
            index, kind = apply(value)
            found[spec.code(step.label)] = (index,), outline_after(step, kind, outline)
            continue
        for place, part in enumerate(step.parts):
            named[part] = NamedValue(value[place : place + 1], kind_of_outline(outline), outline)
            if part in span.returned:
                found[spec.code(part)] = (value[place],), outline
        if step.label in own:
            first, kind = apply(value, span.partition, joint=span.paired)
            dropped = start in ("row", "scalar")
            if dropped and (kind not in kind_of_outline(start) or reduces(step)):
                raise reduced_already(spec, step)
            after = outline_after(step, kind, start)
            one = bool(step.split) or (span.paired and after != "like")
            count = 1 if one else span.partition.parts if span.paired else len(value)
            others = (
                apply(value, span.partition, joint=span.paired, place=place)[0]
                for place in range(1, count)
            )
            value, outline = (first, *others), after
        named[step.label] = NamedValue(value, kind_of_outline(outline), outline)
        if step.label in span.returned:
            found[spec.code(step.label)] = value, outline
    return {"y": (value, outline), **found}


def _handed(builder: Builder, symbol: sp.Symbol) -> NamedValue:
    """Return a value that an earlier segment hands on."""
    parts = tuple(map(builder.value, parts_of(builder, symbol)))
    return NamedValue(parts, parts[0].kind, "like")


def _start(step: Step, before: Outline, named: Mapping[str, NamedValue]) -> Outline:
    """Return the outline of what a step starts from: that of the values which it uses, as far as they have
    dims."""
    found = {named[name].outline for name in step.mentions}
    if step.takes_x or not found:
        found.add(before)
    found.discard("scalar")
    return next((own for own in (before, "like", "keepdim", "row") if own in found), "scalar")


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
