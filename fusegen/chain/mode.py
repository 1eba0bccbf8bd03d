"""Turns the forward pass of a segment in a mode into kernels: those of its derivatives too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from fusegen.atoms.constants import parts
from fusegen.base.activity import doing
from fusegen.base.errors import SpecError
from fusegen.chain.layout import Layout
from fusegen.chain.segment_program import tracked
from fusegen.chain.span import Span
from fusegen.lower import Kernel, LoweringError, MemoryFormat, lower
from fusegen.program import Map, Program, Reduce, Value
from fusegen.program.by_value import by_value
from fusegen.program.calculus import vjp
from fusegen.program.kept_values import read_kept
from fusegen.program.presence import is_presence
from fusegen.program.shared_gradients import share_gradients
from fusegen.spec.model import OPERATORS, Spec, Step

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


def make_mode(
    spec: Spec,
    span: Span,
    layout: Layout,
    name: str,
    suffix: str,
    steps: Sequence[Step],
    forward: Program,
) -> Mode:
    """Return the mode that computes some steps, possibly none.

    Args:
        spec: the spec.
        span: all steps of its segment.
        layout: that of the kernels.
        name: the mode's.
        suffix: what the operators' names end with.
        steps: the steps.
        forward: their program.
    """
    last = span.steps[-1]
    whole, programs = forward, [forward := replace(forward, saved=())]
    _check_size(spec, last, 0, forward)
    for order in range(1, spec.order + 1):
        operator = f"{OPERATORS[order]}{suffix}"
        doing(f"deriving {operator}")
        derived = vjp(programs[-1], operator)
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
    return Mode(name, tuple(steps), tuple(programs), tuple(kernels), formats, followed)


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
