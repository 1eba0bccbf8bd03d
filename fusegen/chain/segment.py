"""Turns steps of one layout into programs, for training and evaluation, with their derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from fusegen.atoms.constants import parts
from fusegen.base.activity import doing
from fusegen.base.errors import SpecError
from fusegen.chain.dims_of_values import placed
from fusegen.chain.layout import Layout
from fusegen.chain.operands import SegmentOperand, operands_of
from fusegen.chain.segment_program import forward_program, tracked
from fusegen.chain.span import Span
from fusegen.chain.third_axis import takes_reordered, with_axis
from fusegen.lower import Kernel, LoweringError, MemoryFormat, lower
from fusegen.program import Map, Outline, Program, Reduce, Value
from fusegen.program.by_value import by_value
from fusegen.program.calculus import vjp
from fusegen.program.kept_values import read_kept
from fusegen.program.presence import is_presence
from fusegen.program.shared_gradients import share_gradients
from fusegen.spec.model import OPERATORS, Ref, Spec, Step

#: The most operations, numbers and names in a program.
MAX_OPERATIONS = 20_000
#: The most arguments of a torch operator.
MAX_ARGUMENTS = 64


@dataclass(frozen=True)
class Mode:
    """A segment in training ("train"), in evaluation ("eval"), or in both ("same").

    Args:
        name: which of them.
        steps: the steps that the kernels compute.
        programs: the forward pass and its derivatives, by order.
        kernels: the same, lowered.
        memory_formats: the memory format that each of them accepts.
        followed: the saved values that running averages follow, by the names of the formulas' parts.
    """

    name: str
    steps: tuple[Step, ...]
    programs: tuple[Program, ...]
    kernels: tuple[Kernel, ...]
    memory_formats: tuple[MemoryFormat, ...]
    followed: Mapping[str, Value]

    @property
    def saved(self) -> tuple[Value, ...]:
        """The row and column statistics that are saved: for derivatives, and for running averages."""
        return self.programs[0].saved

    @property
    def random(self) -> bool:
        """Whether the mode generates random numbers."""
        return any(i.source == "random" for i in self.programs[0].inputs)

    @property
    def told(self) -> bool:
        """Whether its derivatives are told which cotangents of the outputs are present."""
        return any(p.presence or any(map(is_presence, p.inputs)) for p in self.programs)


@dataclass(frozen=True)
class Segment:
    """Steps of one layout, which run as one kernel for each operator.

    Args:
        name: "" for a chain's only segment, else "segment1", "segment2", …, a part of its operators' names.
        span: the steps, their place in the chain, and the values that they take and hand on.
        operands: every tensor that the steps name, in order.
        attributes: the float arguments that the steps take, in the spec's order.
        modes: only "same", or "train" and "eval"; only "train" if the spec has no other.
    """

    name: str
    span: Span
    operands: tuple[SegmentOperand, ...]
    attributes: tuple[str, ...]
    modes: tuple[Mode, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps. Those of the first segment may start with a source."""
        return self.span.steps

    @property
    def layout(self) -> Layout:
        """How the dims of its activation become rows and columns."""
        return self.span.layout

    @property
    def outline(self) -> Outline:
        """The shape of its value, relative to that of its activation."""
        return self.modes[0].programs[0].outputs["y"].outline

    @property
    def moded(self) -> bool:
        """Whether training differs from evaluation."""
        return self.modes[0].name != "same"

    @property
    def random(self) -> bool:
        """Whether it generates random numbers in training."""
        return any(mode.random for mode in self.modes)

    def shape_after(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of its value, from that of its activation."""
        return self.layout.shape_after(shape, self.outline)


def make_segment(spec: Spec, span: Span, name: str, streams: int) -> Segment:
    """Derive the programs and kernels of some steps.

    Args:
        spec: the spec.
        span: the steps, and their layout.
        name: the segment's name.
        streams: how many steps of earlier segments use random numbers.

    Raises:
        SpecError: the steps have a form that is not supported.
    """
    steps, plain = span.steps, span
    spec = replace(spec, operands=tuple(placed(o, span.left) for o in spec.operands))
    span = with_axis(spec, plain)
    operands = operands_of(spec, span)
    if span.layout.reordered and not takes_reordered(
        forward_program(spec, "forward", span, steps, operands, streams)
    ):
        span = plain
        operands = operands_of(spec, span)
    differs = any(s.op and (s.op.eval_mode == "identity" or s.op.trained) for s in steps)
    modes = []
    both = ("train",) if spec.mode == "training" else ("train", "eval")
    for mode in both if differs else ("same",):
        kept = _steps_of(steps, mode)
        modes.append(_mode(spec, span, (name, mode), kept, operands, streams))
    used = {i.name for m in modes for p in m.programs for i in p.inputs if i.source == "attribute"}
    exposed = {
        value.name
        for step in steps
        if step.op and step.op.tracked
        for value in step.attributes.values()
        if isinstance(value, Ref) and value.is_argument
    }
    attributes = tuple(
        a.name for a in spec.arguments if spec.code(a.name) in used or a.name in exposed
    )
    return Segment(name, span, operands, attributes, tuple(modes))


def _steps_of(steps: Sequence[Step], mode: str) -> tuple[Step, ...]:
    """Return the steps that a mode computes: evaluation leaves out those that are the identity there."""
    if mode == "eval":
        return tuple(s for s in steps if not (s.op and s.op.eval_mode == "identity"))
    return tuple(steps)


def _mode(
    spec: Spec,
    span: Span,
    names: tuple[str, str],
    steps: Sequence[Step],
    operands: Sequence[SegmentOperand],
    streams: int,
) -> Mode:
    """Return the mode that computes `steps`, possibly none; `names` are the segment's and the mode's."""
    layout, last = span.layout, span.steps[-1]
    suffix = "".join(f"_{name}" for name in names if name not in ("", "same"))
    forward = forward_program(spec, f"forward{suffix}", span, steps, operands, streams)
    whole, programs = forward, [forward := replace(forward, saved=())]
    _check_size(spec, last, 0, forward)
    for order in range(1, spec.order + 1):
        name = f"{OPERATORS[order]}{suffix}"
        doing(f"deriving {name}")
        derived = vjp(programs[-1], name)
        if order == 1:
            derived = read_kept(forward, derived)
        programs.append(share_gradients(derived))
        _check_size(spec, last, order, programs[-1])
    whole, programs = by_value(whole), [by_value(p) for p in programs]
    followed = dict(zip(tracked(spec, steps), whole.saved, strict=False))  # none in evaluation
    forward = replace(whole, saved=())
    averaged = tuple(dict.fromkeys(followed.values()))
    known = [v.name for v in averaged]
    later = {v.name for p in programs[1:] for v in p.nodes(p.named(known))}
    nodes = replace(forward, saved=averaged).nodes()
    saved = tuple(v for v in nodes if v in averaged or (isinstance(v, Reduce) and v.name in later))
    programs[0] = replace(forward, saved=saved)
    _check_counts(spec, span, programs, len(saved))
    kernels = [
        _lowered(spec, last, order, program, given_to(program, saved) if order else (), layout)
        for order, program in enumerate(programs)
    ]
    formats = _memory_formats(kernels, layout, any(i.source == "random" for i in forward.inputs))
    return Mode(names[1], tuple(steps), tuple(programs), tuple(kernels), formats, followed)


def given_to(derivative: Program, saved: Sequence[Value]) -> tuple[Value, ...]:
    """Return the values of a derivative that the forward pass saved, in its order: they have the same names.

    Those that the derivative does not need are the forward's own.
    """
    own = {v.name: v for v in derivative.named([v.name for v in saved])}
    return tuple(own.get(v.name, v) for v in saved)


def _check_size(spec: Spec, last: Step, order: int, program: Program) -> None:
    """Refuse a program that is so long that lowering and compiling it would not end.

    Raises:
        SpecError: the program is too long.
    """
    count = sum(1 for v in program.nodes() if isinstance(v, Map) for _ in parts(v.expr))
    if count > MAX_OPERATIONS:
        remedy = f"set order: {order - 1}, or make" if order > 1 else "make"
        message = (
            f"{program.name} has {count:,} operations, at most {MAX_OPERATIONS:,}; {remedy} several "
            "chains of it"
        )
        raise SpecError(message, spec.path, last.line)


def _check_counts(spec: Spec, span: Span, programs: Sequence[Program], statistics: int) -> None:
    """Refuse an operator with more arguments than torch allows, because it would end the process.

    Raises:
        SpecError: an operator takes too many tensors and numbers.
    """
    for order, program in enumerate(programs):
        others = sum(i.source == "attribute" for i in program.inputs)
        others += any(i.source == "random" for i in programs[0].inputs)  # the seed
        others += span.layout.groups is not None
        others += bool(order) and any(map(is_presence, program.inputs))
        count = len(program.tensors) + others + (statistics if order else 0)
        if count > MAX_ARGUMENTS:
            remedy = f"set order: {order - 1}, or " if order > 1 else ""
            raise SpecError(
                f"the {OPERATORS[order]} would take {count} tensors and numbers, and an operator of torch "
                f"takes at most {MAX_ARGUMENTS}: {remedy}make two chains of it",
                spec.path,
                span.steps[-1].line,
            )


def _memory_formats(
    kernels: Sequence[Kernel], layout: Layout, random: bool
) -> tuple[MemoryFormat, ...]:
    """Return the memory format that each operator of a mode accepts.

    With random numbers, all operators get the most restricted format among them. An element's random number
    depends on its place in memory, and must be the same in every operator.
    """
    if layout.reordered:
        return tuple("contiguous" for _ in kernels)
    formats = tuple(kernel.memory_format for kernel in kernels)
    if random:
        return (min(formats, key=get_args(MemoryFormat).index),) * len(kernels)
    return formats


def _lowered(
    spec: Spec,
    last: Step,
    order: int,
    program: Program,
    saved: Sequence[Value],
    layout: Layout,
) -> Kernel:
    """Return the kernel of an operator, or refuse its chain with a remedy."""
    doing(f"lowering {program.name}")
    try:
        return lower(
            program,
            given=saved,
            apart=layout.strided or layout.groups is not None,
            grouped=layout.groups is not None,
            reordered=layout.reordered,
        )
    except LoweringError as error:
        remedy = f"set order: {order - 1}" if order > 1 else "reduce over a dim"
        message = f"{error}, which one kernel cannot do; {remedy}"
        raise SpecError(message, spec.path, last.line) from None
