"""Turns a spec into a chain: its segments in order, and what they take together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fusegen.base.errors import SpecError
from fusegen.chain.axes_of_reductions import reduced_already
from fusegen.chain.cut_into_segments import spans_of
from fusegen.chain.layout import Layout
from fusegen.chain.mode import Mode, given_to
from fusegen.chain.operands import SegmentOperand
from fusegen.chain.segment import Segment, make_segment
from fusegen.chain.span import Span
from fusegen.program import Kind, Program, Value
from fusegen.spec.cut import START
from fusegen.spec.model import INPUT, Spec, Step

__all__ = ["Chain", "Mode", "Segment", "SegmentOperand", "derive"]


@dataclass(frozen=True)
class Chain:
    """Everything that is derived from a spec.

    Args:
        spec: the spec.
        source: the step that torch computes first (a matmul), if any.
        operands: every tensor that `apply` takes beside x, in its order, each with its kind in the first
            segment that takes it.
        attributes: the float arguments that the kernels take, in the spec's order.
        segments: the segments in order, each of which runs on the value of the one before.
    """

    spec: Spec
    source: Step | None
    operands: tuple[SegmentOperand, ...]
    attributes: tuple[str, ...]
    segments: tuple[Segment, ...]

    @property
    def layout(self) -> Layout:
        """The layout of x, which is that of the first segment."""
        return self.segments[0].layout

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes of all segments, in the segments' order."""
        return tuple(mode for segment in self.segments for mode in segment.modes)

    @property
    def moded(self) -> bool:
        """Whether training differs from evaluation."""
        return any(segment.moded for segment in self.segments)

    @property
    def random(self) -> bool:
        """Whether the chain generates random numbers in training."""
        return any(segment.random for segment in self.segments)

    @property
    def groups(self) -> tuple[str, ...]:
        """The int arguments that give a number of groups, into which a segment's channels are split."""
        named = [segment.layout.groups for segment in self.segments]
        return tuple(dict.fromkeys(n for n in named if isinstance(n, str)))

    def reached(self, x: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return the shape of each segment's activation, for an `x` of this shape.

        If a segment's activation is larger than the value that reaches it, operands determine its size; here
        it is as in x.
        """
        found: list[tuple[int, ...]] = []
        shape = tuple(x)
        for segment in self.segments:
            places = {dim + len(shape) for dim in segment.span.broadcast}
            whole = tuple(n if d not in places else x[d - len(shape)] for d, n in enumerate(shape))
            found.append(whole)
            shape = segment.shape_after(whole)
        return tuple(found)

    def example_shape(self, rows: int, cols: int) -> tuple[int, ...]:
        """Return the shape of an `x` with roughly this many rows and columns."""
        dims = max(self.layout.rank - 2, 0)
        cols += -cols % self.parts
        shape = [rows // 2**dims or 2, *[2] * dims, cols] if dims else [rows, cols]
        if self.layout.halved and not self.segments[0].span.paired:
            shape[self.layout.halved] *= self.layout.partition.parts
        groups = (s.attributes[s.op.groups] for s in self.spec.steps if s.op and s.op.groups)
        least = math.lcm(*(number for number in groups if isinstance(number, int)))
        shape[1] = -(-shape[1] // least) * least  # channels that the groups divide
        return tuple(shape)

    @property
    def parts(self) -> int:
        """A number that the size of the last dim must be divisible by, because rows are cut into parts."""
        paired = (s.layout.partition.parts for s in self.segments if s.span.paired)
        return math.lcm(*paired)

    def operand_shapes(self, x: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Return the shape of each operand of `apply` for an `x` of this shape, by name and in order."""
        found: dict[str, tuple[int, ...]] = {}
        for segment, reached in zip(self.segments, self.reached(x), strict=True):
            for operand in segment.operands:
                if not operand.handed:
                    found.setdefault(operand.name, operand.shape(reached, segment.layout))
        return {operand.name: found[operand.name] for operand in self.operands}

    def output_shapes(self, x: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Return the shape of each output for an `x` of this shape, by its step."""
        found: dict[str, tuple[int, ...]] = {}
        for segment, shape in zip(self.segments, self.reached(x), strict=True):
            if segment is self.segments[0]:
                found |= dict.fromkeys(segment.span.begins, tuple(x))
            for label in segment.span.returned:
                outline = segment.modes[0].programs[0].outputs[self.spec.code(label)].outline
                found[label] = segment.layout.shape_after(shape, outline)
            found[segment.steps[-1].label] = segment.shape_after(shape)
        last = self.spec.steps[-1].label
        return {label: found[label] for label in self.spec.outputs or (last,)}

    @property
    def operators(self) -> Iterator[tuple[Program, tuple[Value, ...]]]:
        """The program of each operator, and the values that the forward pass saved for it."""
        for mode in self.modes:
            for order, program in enumerate(mode.programs):
                yield program, given_to(program, mode.saved) if order else ()

    def describe(self) -> str:
        """Return every program of the chain, as text."""
        return "\n\n".join(str(program) for mode in self.modes for program in mode.programs)


def derive(spec: Spec, what: str = "this") -> Chain:
    """Derive the programs and kernels of a spec of one chain.

    Args:
        spec: the spec.
        what: what takes only such a spec, for a message.

    Raises:
        SpecError: the chain has a form that is not supported, or the spec has several.
    """
    if further := [step for step in spec.steps[1:] if step.is_source]:
        message = (
            f"{what} takes a spec of one chain, and {further[0].label} starts another: write the steps of a "
            "chain as a spec of their own"
        )
        raise SpecError(message, spec.path, further[0].line)
    spans = spans_of(spec)
    _check_float32(spec, spans)
    segments: list[Segment] = []
    streams = 0
    for number, span in enumerate(spans, 1):
        if segments and segments[-1].outline == "scalar":
            raise reduced_already(spec, span.steps[0])
        own = f"segment{number}" if len(spans) > 1 else ""
        name = "_".join(filter(None, [f"chain{spec.number}" if spec.number else "", own]))
        segments.append(make_segment(spec, span, name, streams))
        streams += sum(s.op is not None and s.op.eval_mode == "identity" for s in span.steps)
    operands: dict[str, SegmentOperand] = {}
    for operand in (o for segment in segments for o in segment.operands if not o.handed):
        first = operands.setdefault(operand.name, operand)
        moves = first.differentiable or operand.differentiable
        operands[operand.name] = replace(first, differentiable=moves)
    taken = {name for segment in segments for name in segment.attributes}
    chain = Chain(
        spec=spec,
        source=spec.steps[0] if spec.steps[0].is_source and spec.steps[0].op is not START else None,
        operands=_in_order(spec, operands),
        attributes=tuple(a.name for a in spec.arguments if a.name in taken),
        segments=tuple(segments),
    )
    _check_shared(chain)
    return chain


def _check_float32(spec: Spec, spans: Sequence[Span]) -> None:
    """Refuse an output of float32 that a later segment takes: segments take values in x's dtype.

    Raises:
        SpecError: there is one.
    """
    for span in spans:
        for step in spec.steps:
            if step.label in spec.unrounded.intersection((*span.begins, *span.handed)):
                returned, remedy = "returned with `dtype: float32`", "leave out the dtype, or"
                if step.indexes:
                    returned, remedy = "of int64", "make it the last step, or"
                message = (
                    f"{step.label} is {returned}, and {span.steps[0].label} starts another segment that "
                    f"takes it, in x's dtype: {remedy} make two chains"
                )
                raise SpecError(message, spec.path, step.line)


def _in_order(spec: Spec, operands: Mapping[str, SegmentOperand]) -> tuple[SegmentOperand, ...]:
    """Return the operands of `apply` in order, which does not depend on where steps use them.

    `input` comes first, then the spec's operands in the order of their declarations, then those of
    submodules, step by step.
    """
    first = [name for name in (INPUT, *(o.name for o in spec.operands)) if name in operands]
    rest = [name for name in operands if name not in first]
    return tuple(operands[name] for name in dict.fromkeys([*first, *rest]))


def _check_shared(chain: Chain) -> None:
    """Refuse an operand for which two segments need different shapes.

    Raises:
        SpecError: there is one.
    """
    # All these sizes and their halves differ from one another.
    reached = chain.reached([4 * dim + 6 for dim in range(chain.layout.rank or 2)])
    wanted: dict[str, tuple[Segment, tuple[int, ...]]] = {}
    for segment, start in zip(chain.segments, reached, strict=True):
        for operand in (o for o in segment.operands if not o.handed):
            shape = operand.shape(start, segment.layout)
            if operand.on_axis or operand.kind is Kind.COL:
                shape = tuple(size for size in shape if size != 1)  # [C] and [C, 1, 1] are the same
            other, before = wanted.setdefault(operand.name, (segment, shape))
            if shape != before:
                raise SpecError(
                    f"{operand.name!r} is of kind {operand.kind.label}, which is another shape for "
                    f"{segment.steps[0].label} and the steps after it than for {other.steps[0].label}: "
                    "declare an operand for each",
                    chain.spec.path,
                    next(o.line for o in chain.spec.operands if o.name == operand.name),
                )
