"""Turns steps of one layout into programs, for training and evaluation, with their derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fusegen.base.errors import SpecError
from fusegen.chain.dims_of_values import placed
from fusegen.chain.layout import Layout
from fusegen.chain.mode import Mode, make_mode
from fusegen.chain.operands import SegmentOperand, operands_of
from fusegen.chain.over_channels import beside_channels, over_channels
from fusegen.chain.segment_program import forward_program
from fusegen.chain.span import Span
from fusegen.chain.third_axis import takes_reordered, with_axis
from fusegen.program import Outline
from fusegen.program.exchange import exchanged, exchanges
from fusegen.spec.model import Ref, Spec, Step


@dataclass(frozen=True)
class Segment:
    """Steps of one layout, which run as one kernel for each operator.

    Args:
        name: "" for a chain's only segment, else "segment1", "segment2", …, a part of its operators' names.
        span: the steps, their place in the chain, and the values that they take and hand on.
        layout: how the dims of its activation become the rows and columns of its kernels. The span's are what
            its steps reduce; see `over_channels.py` for where the two differ.
        operands: every tensor that the steps name, in order.
        attributes: the float arguments that the steps take, in the spec's order.
        modes: only "same", or "train" and "eval"; only "train" if the spec has no other.
    """

    name: str
    span: Span
    layout: Layout
    operands: tuple[SegmentOperand, ...]
    attributes: tuple[str, ...]
    modes: tuple[Mode, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps. Those of the first segment may start with a source."""
        return self.span.steps

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
    layout, modes = span.layout, None
    if (by_channel := over_channels(span, operands)) is not None:
        modes = _modes(spec, span, name, operands, streams, by_channel)
    if by_channel is not None and modes is not None:
        layout, operands = by_channel, tuple(map(beside_channels, operands))
    modes = modes or _modes(spec, span, name, operands, streams, layout)
    assert modes is not None
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
    return Segment(name, span, layout, operands, attributes, modes)


def _modes(
    spec: Spec,
    span: Span,
    name: str,
    operands: Sequence[SegmentOperand],
    streams: int,
    layout: Layout,
) -> tuple[Mode, ...] | None:
    """Return the modes of a segment's kernels, or None if none can have a layout that is not the span's.

    Args:
        spec: the spec.
        span: the steps.
        name: the segment's name.
        operands: every tensor that the steps name.
        streams: how many steps of earlier segments use random numbers.
        layout: that of the kernels.

    Raises:
        SpecError: the steps have a form that is not supported.
    """
    steps = span.steps
    differs = any(s.op and (s.op.eval_mode == "identity" or s.op.trained) for s in steps)
    modes = []
    both = ("train",) if spec.mode == "training" else ("train", "eval")
    for mode in both if differs else ("same",):
        kept, suffix = (
            _steps_of(steps, mode),
            "".join(f"_{n}" for n in (name, mode) if n not in ("", "same")),
        )
        forward = forward_program(spec, f"forward{suffix}", span, kept, operands, streams)
        if layout == span.layout:
            modes.append(make_mode(spec, span, layout, mode, suffix, kept, forward))
            continue
        if not exchanges(forward):
            return None
        try:
            modes.append(make_mode(spec, span, layout, mode, suffix, kept, exchanged(forward)))
        except SpecError:
            return None
    return tuple(modes)


def _steps_of(steps: Sequence[Step], mode: str) -> tuple[Step, ...]:
    """Return the steps that a mode computes: evaluation leaves out those that are the identity there."""
    if mode == "eval":
        return tuple(s for s in steps if not (s.op and s.op.eval_mode == "identity"))
    return tuple(steps)
