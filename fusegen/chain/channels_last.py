"""What becomes of a channels-last activation in the kernels of a chain."""

from __future__ import annotations

from typing import Literal

from fusegen.chain.chain import Chain
from fusegen.chain.layout import channel_from_end
from fusegen.chain.segment import Segment

__all__ = ["Reading", "reading_of"]

#: Kernels read it "as it is", near the byte limit; or reduce it "over space" with the channels side by side,
#: which needs many channels; or it is "copied", or read so slowly that a copy would be no worse.
Reading = Literal["as it is", "over space", "copied"]


def reading_of(chain: Chain) -> Reading:
    """Return what becomes of a channels-last activation: the slowest of what the segments do with it."""
    found: Reading = "as it is"
    small = False  # what is left after a reduction, which is contiguous
    for segment in chain.segments:
        if small and not segment.span.broadcast:
            continue
        one = "copied" if small else _reading(segment)
        if one == "copied":
            return one
        found = one if one != "as it is" else found
        small = not _is_full(segment)
    return found


def _reading(segment: Segment) -> Reading:
    """Return what one segment does with it.

    A form that normalises channels-last groups or rows as they are changes the answer here.
    """
    layout = segment.layout
    if layout.rank < 4 or layout.groups is not None or layout.halved or segment.random:
        return (
            "copied"  # with random numbers: the same seed would drop other elements than on a CPU
        )
    channel = channel_from_end(layout.rank)
    formats = {name for mode in segment.modes for name in mode.memory_formats}
    if layout.columns == (channel,):
        return "copied" if "contiguous" in formats else "as it is"
    if layout.first <= channel or not formats <= {"strided", "any"}:
        return "copied"
    if not any(mode.kernels[0].reduces_rows for mode in segment.modes):
        return "as it is"
    return "copied" if _is_full(segment) else "over space"


def _is_full(segment: Segment) -> bool:
    """Whether a segment's value has as many elements as its activation."""
    return segment.outline in ("like", "half")
