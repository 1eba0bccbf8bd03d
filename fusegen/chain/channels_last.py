"""What becomes of a channels-last activation in the kernels of a chain."""

from __future__ import annotations

from typing import Literal

from fusegen.chain.chain import Chain
from fusegen.chain.layout import channel_from_end
from fusegen.chain.segment import Segment

__all__ = ["Reading", "reading_of"]

#: Kernels read it "as it is", near the byte limit; or it is "copied".
Reading = Literal["as it is", "copied"]


def reading_of(chain: Chain) -> Reading:
    """Return what becomes of a channels-last activation: "copied" if one of the segments does so."""
    small = False  # what is left after a reduction, which is contiguous
    for segment in chain.segments:
        if small and not segment.span.broadcast:
            continue
        if small or not _reads(segment):
            return "copied"
        small = segment.outline not in ("like", "half")
    return "as it is"


def _reads(segment: Segment) -> bool:
    """Whether a segment's kernels read it as it is.

    With random numbers they do not: the same seed would drop other elements than on a CPU.
    """
    layout = segment.layout
    if layout.rank < 4 or layout.halved or segment.random:
        return False
    formats = {name for mode in segment.modes for name in mode.memory_formats}
    if layout.groups is not None:
        return formats == {"grouped"}
    if layout.columns == (channel_from_end(layout.rank),):
        return "contiguous" not in formats
    return layout.first > channel_from_end(layout.rank) and formats <= {"strided", "any"}
