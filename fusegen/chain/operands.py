"""The tensors beside x that a segment's steps name: their kinds, their shapes, and their owners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusegen.chain.cut_into_segments import Span
from fusegen.chain.layout import CHANNEL_DIM, Layout
from fusegen.program import Kind
from fusegen.spec.model import Ref, Spec, Step


@dataclass(frozen=True)
class SegmentOperand:
    """A tensor that the chain names.

    Args:
        name: its name in `apply`.
        code: its name in generated C++.
        kind: its kind.
        differentiable: whether it gets a gradient.
        owner: where a `Module` finds it, such as "matmul.bias", or None for an input of `forward`.
        integer: whether it holds int64 numbers: one per row, in the activation's shape without the row's
            dims.
        halves: whether kernels read it in two halves, as they read x.
        mask: whether it is of bool; kernels read it as 0 and 1 in x's dtype.
        float32: whether it is of float32 where x has 16 bits.
        handed: whether an earlier segment hands it on, so that `apply` does not take it.
    """

    name: str
    code: str
    kind: Kind
    differentiable: bool
    owner: str | None
    integer: bool = False
    halves: bool = False
    handed: bool = False
    mask: bool = False
    float32: bool = False

    def shape(self, x: Sequence[int], layout: Layout) -> tuple[int, ...]:
        """Return its shape for an x of this shape; [C] if a submodule has one number per channel."""
        activation = tuple(x) if self.halves else layout.half(x)
        if self.integer:
            return layout.shape_after(x, "row")
        if self.kind is Kind.SCALAR:
            return (1,)
        if self.kind is Kind.CHANNEL:
            held = self.owner is not None and self.owner != self.name
            return (activation[CHANNEL_DIM], *[1] * (0 if held else layout.rank - 2))
        dims = range(-len(activation), 0)
        if self.kind is Kind.COL:
            columns = [activation[d] for d in dims if d in layout.columns]
            return (*columns, *[1] * (-1 - layout.last))
        across = self.kind is Kind.ROW
        return tuple(1 if across and d in layout.columns else activation[d] for d in dims)


def operands_of(spec: Spec, span: Span) -> tuple[SegmentOperand, ...]:
    """Return the tensors that the steps name, each at its first use.

    x comes first if the activation is larger than it; values of earlier segments come last.
    """
    steps, layout = span.steps, span.layout
    declared = {o.name: o for o in spec.operands}
    found: dict[str, SegmentOperand] = {}
    if span.broadcast:
        found["x"] = SegmentOperand(
            "x", "x", Kind.ROW, differentiable=True, owner=None, handed=True
        )

    def in_halves(kind: Kind) -> bool:
        return span.paired and Kind.COL in kind

    for step in steps:
        if step.op and step.op.submodule:
            held = step.op.submodule
            for name, attribute in step.state.items():
                full = f"{step.label}_{attribute}"
                own = step.op.operands[name]
                if step.by_channel or own is None:  # not falsy: that is a scalar's kind
                    own = Kind.CHANNEL
                kind = _resolved(own, layout)
                trained = attribute not in held.buffers
                halves = in_halves(kind) or (step.op.source and layout.halves_channels)
                code = f"{spec.code(step.label)}_{attribute}"
                found[full] = SegmentOperand(
                    *(full, code, kind, trained, f"{step.place}.{attribute}"),
                    halves=halves,
                    float32=step.float32,
                )
        for name in step.tensors:
            if name in declared:
                operand = declared[name]
                owner = None if operand.init is None else name
                kind = _resolved(operand.kind, layout)
                moves = not operand.constant and name not in _constants_of(step)
                before = found.get(name)
                moves = moves or (before is not None and before.differentiable)
                found[name] = SegmentOperand(
                    *(name, spec.code(name), kind, moves, owner, operand.integer),
                    mask=operand.mask,
                    float32=operand.float32,
                    halves=in_halves(kind),
                )
    for name, kind in span.handed.items():
        kind = _resolved(kind, layout)
        found[name] = SegmentOperand(
            name, spec.code(name), kind, True, None, handed=True, halves=in_halves(kind)
        )
    return tuple(found.values())


def _constants_of(step: Step) -> list[str]:
    """Return the operands of a step through which no gradient runs."""
    constant = step.op.constant if step.op else ()
    return [r.name for n, r in step.operands.items() if n in constant and isinstance(r, Ref)]


def _resolved(kind: Kind, layout: Layout) -> Kind:
    """Return an operand's kind. If the channel is the last dim and is not split, that is a column's kind."""
    if layout.rank < 3 and kind in (Kind.CHANNEL, Kind.COL):
        return Kind.COL if layout.groups is None else Kind.CHANNEL
    return kind
