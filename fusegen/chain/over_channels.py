"""Reductions over all dims but the channels, as a statistic of a batch: kernels have the channels as columns.

The dims of such a row are no neighbours, so kernels would take a view with the channels first, and copy it
where the channels are not last in memory. With the channels as columns a sum over a row is one over rows,
as in a batch norm, and both memory formats are read where they lie. A maximum over rows has no kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fusegen.chain.layout import Layout, channel_from_end
from fusegen.chain.operands import SegmentOperand
from fusegen.chain.span import Span
from fusegen.program import Kind
from fusegen.program.exchange import exchanged_kind

__all__ = ["beside_channels", "over_channels"]


def over_channels(span: Span, operands: Sequence[SegmentOperand]) -> Layout | None:
    """Return the layout whose columns are the channels, if a span's rows are all other dims, or None."""
    layout, channel = span.layout, channel_from_end(span.layout.rank)
    if not layout.apart or layout.dims_of(Kind.ROW) != {channel}:
        return None
    aligned = span.broadcast or span.beside_dropped  # to the dims of the span's rows
    held = any(o.kind is Kind.COL and o.owner is not None for o in operands)
    if aligned or held or span.paired or layout.halved:
        return None
    return Layout(layout.rank, channel, channel)


def beside_channels(operand: SegmentOperand) -> SegmentOperand:
    """Return an operand of such a span as kernels take it: what varied along its rows is of the channels."""
    kind = exchanged_kind(operand.kind)
    if kind is Kind.COL and operand.dims is None:
        kind = Kind.CHANNEL  # a call may pass [C]
    return replace(operand, kind=kind)
