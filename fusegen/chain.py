"""Spec -> programs: the chain as it runs in training and in evaluation, with its derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from fusegen import ops
from fusegen.calculus import vjp
from fusegen.chain_layout import layout_of
from fusegen.errors import SpecError
from fusegen.formula_constants import number
from fusegen.formula_nodes import formula_value
from fusegen.layout import Layout
from fusegen.lower import Kernel, LoweringError, lower
from fusegen.lower.ranges import simplify
from fusegen.program import SECOND, Input, Kind, Outline, Output, Program, Reduce, Value
from fusegen.program_builder import Builder
from fusegen.spec_types import PASSES, Ref, Spec, Step


@dataclass(frozen=True)
class Tensors:
    """A tensor that the chain names.

    Args:
        name: its name in `apply`.
        kind: its kind.
        differentiable: whether it gets a gradient.
        owner: where a `Module` finds it, such as "matmul.bias", or None for an input of `forward`.
        integer: whether it holds int64 numbers.
        halves: whether it has a half for each of x's, one behind the other.
    """

    name: str
    kind: Kind
    differentiable: bool
    owner: str | None
    integer: bool = False
    halves: bool = False


@dataclass(frozen=True)
class Mode:
    """The chain in training ("train"), in evaluation ("eval"), or in both ("same").

    Args:
        name: which of them.
        steps: the steps that the kernels compute.
        programs: the forward pass and its derivatives, by order.
        kernels: the same, lowered.
    """

    name: str
    steps: tuple[Step, ...]
    programs: tuple[Program, ...]
    kernels: tuple[Kernel, ...]

    @property
    def saved(self) -> tuple[Value, ...]:
        """The row statistics that the forward pass saves."""
        return self.programs[0].saved

    @property
    def random(self) -> bool:
        """Whether the mode draws random numbers."""
        return any(i.source == "random" for i in self.programs[0].inputs)


@dataclass(frozen=True)
class Chain:
    """Everything that is derived from a spec.

    Args:
        spec: the spec.
        source: the step that torch computes first (a matmul), if any.
        operands: every tensor the chain names, in order.
        attributes: the float arguments that the kernels take, in the spec's order.
        modes: "same" alone, or "train" and "eval".
        layout: how the activation's dims become rows and columns.
    """

    spec: Spec
    source: Step | None
    operands: tuple[Tensors, ...]
    attributes: tuple[str, ...]
    modes: tuple[Mode, ...]
    layout: Layout

    def describe(self) -> str:
        """Return every program of the chain, as text."""
        return "\n\n".join(str(program) for mode in self.modes for program in mode.programs)


def derive(spec: Spec) -> Chain:
    """Derive the programs and kernels of a spec.

    Raises:
        SpecError: where the chain has a form that is not supported.
    """
    steps = spec.steps
    operands = _operands(spec)
    differs = any(s.op and (s.op.eval_mode == "identity" or s.op.trained) for s in steps)
    layout = layout_of(spec)
    modes = []
    for name in ("train", "eval") if differs else ("same",):
        kept = _steps_of(steps, name)
        modes.append(_mode(spec, name, kept, operands, layout))
    used = {i.name for m in modes for p in m.programs for i in p.inputs if i.source == "attribute"}
    exposed = used | {
        value.name
        for step in steps
        if step.op and step.op.tracked
        for value in step.attributes.values()
        if isinstance(value, Ref) and value.is_argument
    }
    return Chain(
        spec=spec,
        source=steps[0] if steps[0].op and steps[0].op.source else None,
        operands=operands,
        attributes=tuple(a.name for a in spec.arguments if a.name in exposed),
        modes=tuple(modes),
        layout=layout,
    )


def _steps_of(steps: Sequence[Step], mode: str) -> tuple[Step, ...]:
    if mode == "eval":
        return tuple(s for s in steps if not (s.op and s.op.eval_mode == "identity"))
    return tuple(steps)


def _operands(spec: Spec) -> tuple[Tensors, ...]:
    """Return the tensors that the chain names, each at its first use."""
    declared = {o.name: o for o in spec.operands}
    found: dict[str, Tensors] = {}
    for step in spec.steps:
        if step.op and step.op.submodule:
            held = step.op.submodule
            for name, attribute in step.held.items():
                full = f"{step.label}_{attribute}"
                own = step.op.operands[name]
                if step.by_channel or own is None:  # not falsy: that is a scalar's kind
                    own = Kind.CHANNEL
                kind = _resolved(own, spec)
                trained = attribute not in held.buffers
                halves = step.op.source and spec.halved == spec.channel_dim
                found[full] = Tensors(
                    full, kind, trained, f"{step.label}.{attribute}", halves=halves
                )
        for name in _names_in(step):
            if name in declared:
                operand = declared[name]
                owner = name if operand.init else None
                kind = _resolved(operand.kind, spec)
                moves = name not in _constants_of(step)
                before = found.get(name)
                moves = moves or (before is not None and before.differentiable)
                found[name] = Tensors(name, kind, moves, owner, operand.integer)
    return tuple(found.values())


def _constants_of(step: Step) -> list[str]:
    """Return the operands of a step through which no gradient runs."""
    constant = step.op.constant if step.op else ()
    return [r.name for n, r in step.operands.items() if n in constant and isinstance(r, Ref)]


def _resolved(kind: Kind, spec: Spec) -> Kind:
    """Return an operand's kind; where the channel is the last dim and is not cut, it is that of a column."""
    if spec.dims < 3 and kind in (Kind.CHANNEL, Kind.COL):
        grouped = any(s.op and s.op.groups for s in spec.steps)
        return Kind.CHANNEL if grouped else Kind.COL
    return kind


def _names_in(step: Step) -> list[str]:
    return [
        ref.name for ref in step.operands.values() if isinstance(ref, Ref) and not ref.is_argument
    ]


def _mode(
    spec: Spec, name: str, steps: Sequence[Step], operands: Sequence[Tensors], layout: Layout
) -> Mode:
    suffix = "" if name == "same" else f"_{name}"
    forward = _program(spec, f"forward{suffix}", steps, operands, layout)
    programs = [forward]
    for order in range(1, spec.order + 1):
        programs.append(vjp(programs[-1], f"{PASSES[order]}{suffix}"))
    later = {v for p in programs[1:] for v in p.nodes()}
    saved = tuple(v for v in forward.nodes() if isinstance(v, Reduce) and v in later)
    programs[0] = replace(forward, saved=saved)
    kernels = [
        _lowered(spec, order, program, saved if order else (), layout)
        for order, program in enumerate(programs)
    ]
    return Mode(name, tuple(steps), tuple(programs), tuple(kernels))


def _lowered(
    spec: Spec, order: int, program: Program, saved: Sequence[Value], layout: Layout
) -> Kernel:
    try:
        return lower(program, given=saved, strided=layout.strided)
    except LoweringError as error:
        remedy = f"set order: {order - 1}" if order > 1 else "reduce over a dim"
        message = f"{error}, which one kernel cannot do; {remedy}"
        raise SpecError(message, spec.path, spec.steps[-1].line) from None


def _program(
    spec: Spec, name: str, steps: Sequence[Step], operands: Sequence[Tensors], layout: Layout
) -> Program:
    """Return the program of some steps; its inputs are x and what those steps name."""
    builder = Builder()
    x, second = _activation(spec, builder)
    training = name.endswith("_train")
    named = {n for step in steps for n in _tensors_of(step, training=training)}
    for operand in operands:
        if operand.name in named:
            per_channel = operand.kind is Kind.CHANNEL
            kind = layout.channel_kind if per_channel else operand.kind
            spread = per_channel and layout.spreads
            moves = operand.differentiable
            if operand.halves:
                builder.halves(operand.name, kind, differentiable=moves, per_channel=spread)
                continue
            builder.input(
                operand.name,
                kind,
                differentiable=moves,
                per_channel=spread,
                integer=operand.integer,
            )
    for argument in spec.arguments:
        if argument.type == "float" and any(argument.name in _arguments_of(s) for s in steps):
            builder.input(argument.name, Kind.SCALAR, "attribute")
    value, outline = _run(spec, builder, x, second, steps, training=training)
    if second is not None and outline == "like":
        outline = "half"
    tensors: list[Input] = [i for i in builder.inputs if i.source == "tensor"]
    rest = [i for i in builder.inputs if i.source != "tensor"]
    return simplify(Program(name, (*tensors, *rest), {"y": Output(value, x, outline)}))


def _activation(spec: Spec, builder: Builder) -> tuple[Input, Input | None]:
    """Return x as an input, or its two halves."""
    return builder.halves("x", Kind.FULL) if spec.halved else (builder.input("x", Kind.FULL), None)


def _run(
    spec: Spec,
    builder: Builder,
    x: Value,
    second: Value | None,
    steps: Sequence[Step],
    *,
    training: bool,
) -> tuple[Value, Outline]:
    """Return the value behind the steps, and its shape.

    Args:
        spec: the spec.
        builder: where the nodes are made.
        x: the activation, or its first half.
        second: its second half, which goes through the same steps up to that which takes both.
        steps: the steps.
        training: the mode.

    Raises:
        SpecError: where a step needs dims that an earlier one has reduced.
    """
    value = x
    outline: Outline = "like"
    for step in steps:
        before = value
        value = _apply(builder, step, value, training=training, second=second)
        if step.halves:
            second = None
        elif second is not None:
            second = _apply(builder, step, second, training=training, ending=SECOND)
        if outline in ("row", "scalar") and (
            value.kind not in before.kind or (step.op is not None and step.op.dims)
        ):
            raise SpecError(
                f"{step.label}: an earlier step has reduced the columns; reduce with keepdim: true to go "
                "on with them, or take operands that have none",
                spec.path,
                step.line,
            )
        outline = _outline(step, value, outline)
    return value, outline


def _outline(step: Step, value: Value, before: Outline) -> Outline:
    """Return the shape of a step's value, given that of what it started from."""
    if Kind.COL in value.kind:
        return "like"
    if Kind.ROW not in value.kind:
        return "scalar"
    if step.op is None or (before != "like" and not step.op.dims):
        return "keepdim" if before == "like" else before
    return "keepdim" if step.attributes.get("keepdim") else "row"


def _tensors_of(step: Step, *, training: bool) -> list[str]:
    idle = step.op.tracked if training and step.op else ()
    held = [attribute for name, attribute in step.held.items() if name not in idle]
    return [f"{step.label}_{attribute}" for attribute in held] + _names_in(step)


def _arguments_of(step: Step) -> set[str]:
    """Return the arguments in a step's value; a `momentum` is in its running averages alone."""
    values = {**step.operands, **step.attributes}
    if step.op and step.op.tracked:
        del values["momentum"]
    return {v.name for v in values.values() if isinstance(v, Ref) and v.is_argument}


def _apply(
    builder: Builder,
    step: Step,
    x: Value,
    *,
    training: bool,
    second: Value | None = None,
    ending: str = "",
) -> Value:
    """Return the value of one step.

    Args:
        builder: where the nodes are made.
        step: the step.
        x: the activation in front of it.
        training: the mode.
        second: the second half of what x is the first half of.
        ending: what the names of a half end in, where x is the second.
    """
    cols = None if Kind.COL in x.kind else 1
    if step.formula is not None:
        formula = step.formula.xreplace({sp.Symbol("x", real=True): x.symbol})
        return formula_value(builder, step.label, formula, step.text, cols=cols)
    assert step.op is not None
    bound: dict[str, sp.Expr] = {k: _symbol(v) for k, v in step.operands.items()}
    for name, attribute in step.held.items():
        whole = f"{step.label}_{attribute}"
        own = sp.Symbol(f"{whole}{ending}", real=True)
        bound[name] = own if builder.knows(own) else sp.Symbol(whole, real=True)
    if step.halves:
        assert second is not None
        bound[step.halves] = second.symbol
    attributes: Mapping[str, object] = {k: _constant(v) for k, v in step.attributes.items()}
    expr = ops.call(step.op, x.symbol, bound, attributes, training=training)
    note = f"{step.label}: {step.op.statement}"
    return formula_value(builder, f"{step.label}{ending}", expr, note, cols=cols)


def _symbol(value: Ref | float) -> sp.Expr:
    return sp.Symbol(value.name, real=True) if isinstance(value, Ref) else number(value)


def _constant(value: object) -> object:
    return sp.Symbol(value.name, real=True) if isinstance(value, Ref) else value
