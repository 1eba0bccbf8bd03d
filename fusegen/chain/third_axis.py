"""Finds a segment's third axis, beside rows and columns: the dims of operands that vary along some of the
rows.

Kernels add up the gradient of such an operand while they compute its terms. An operand with one number per
channel is the usual case; [batch, 1, feature] and [heads, T, T] are others. Their axis is what `channel`
means in the segment's program and kernels. An element's place on it is its number / run % size. For
[batch, 1, feature], rows are therefore counted sample by sample: those of one position are neighbours.

Where rows are groups of channels, the axis may be that of samples and their channels, as in a U-Net that
scales each channel by a time step. Operands with one number per channel, as a norm's weight, are then
expanded to it.

A segment has one such axis. Operands along other dims are expanded before the operator, to an axis that has
their dims or to all elements, and torch sums their gradients.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from fusegen.chain.layout import Layout
from fusegen.chain.span import Span
from fusegen.program import Kind, Program
from fusegen.spec.model import Operand, Spec

__all__ = ["kind_along", "kind_of_dims", "takes_reordered", "with_axis"]


def with_axis(spec: Spec, span: Span) -> Span:
    """Return a span whose layout has a third axis, if operands need one."""
    named = {name for step in span.steps for name in step.tensors}
    used = [o for o in spec.operands if o.name in named]
    layout = span.layout
    if (
        layout.rank < 3
        or layout.halved
        or layout.apart
        or span.broadcast
        or Kind.CHANNEL in span.handed.values()
    ):
        return span
    if layout.groups is not None:
        samples_and_channels = (*range(-layout.rank, layout.first + 1),)
        if not any(o.dims == samples_and_channels for o in used):
            return span
        return replace(span, layout=replace(layout, axis=samples_and_channels))
    if (
        layout.last != -1
        or any(step.of_channels.intersection(step.state) for step in span.steps)
        or any(o.of_channels for o in used)
    ):
        return span
    wanted = Counter(
        o.dims
        for o in used
        if o.dims and not o.constant and _is_third(o, layout) and _is_run(o.dims, layout)
    )
    if not wanted:
        return span
    return replace(span, layout=replace(layout, axis=wanted.most_common(1)[0][0]))


def kind_along(operand: Operand, layout: Layout) -> Kind:
    """Return the kind of an operand in a segment."""
    return operand.kind if operand.dims is None else kind_of_dims(operand.dims, layout)


def kind_of_dims(dims: tuple[int, ...], layout: Layout) -> Kind:
    """Return the kind of an operand that varies along some dims.

    If no axis has its dims, it is expanded to one that has them and others: rows, or columns, or the third
    axis where this orders the rows. So it makes no value larger whose columns were reduced.
    """
    found = _own_kind(dims, layout)
    if found is not None:
        return found
    axes = [Kind.ROW, Kind.COL] if layout.groups is None else []
    if layout.reordered or layout.by_sample:
        axes = [*axes[1:], Kind.CHANNEL]
    wider = (axis for axis in axes if layout.dims_of(axis).issuperset(dims))
    return next(wider, Kind.FULL)


def _own_kind(dims: tuple[int, ...], layout: Layout) -> Kind | None:
    """Return the kind of what varies along exactly these dims, if there is one."""
    channels = (Kind.CHANNEL,) if layout.groups is None or layout.by_sample else ()
    return layout.kind_along(dims, (Kind.FULL, Kind.SCALAR, Kind.COL, Kind.ROW, *channels))


def takes_reordered(program: Program) -> bool:
    """Whether a forward pass may count rows in another order than the dims'.

    It may have no tensors with one number per row, and no random numbers.
    """
    return all(output.outline == "like" for output in program.outputs.values()) and not any(
        i.source == "random" or (i.source == "tensor" and i.kind == Kind.ROW)
        for i in program.inputs
    )


def _is_third(operand: Operand, layout: Layout) -> bool:
    """Whether an operand varies along other dims than full, row, col and scalar ones."""
    return _own_kind(operand.dims or (), replace(layout, axis=())) is None


def _is_run(dims: tuple[int, ...], layout: Layout) -> bool:
    """Whether some dims can be an axis: neighbouring dims of the rows, or those of the columns and any of the
    rows."""
    inside = [dim for dim in dims if dim in layout.columns]
    if inside:
        return len(inside) == len(layout.columns) and len(dims) < layout.rank
    return [*dims] == [*range(dims[0], dims[-1] + 1)]
