"""Chain: a spec becomes programs and kernels, one set for each part of the chain that one layout serves.

In: a `Spec`. Out: a `Chain` of segments, each with its programs and, by `fusegen.lower`, its kernels, for
training and for evaluation. `fusegen.render` writes files of it.
"""

from __future__ import annotations

from fusegen.chain.chain import Chain, Mode, Segment, SegmentOperand, derive

__all__ = ["Chain", "Mode", "Segment", "SegmentOperand", "derive"]
