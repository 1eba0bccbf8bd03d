"""Chain: turns a spec into programs and kernels, one set for each segment of the chain that shares a layout.

A `Spec` becomes a `Chain` of segments. Each has its programs, and through `fusegen.lower` its kernels, for
training and for evaluation. `fusegen.render` writes files from it.
"""

from __future__ import annotations

from fusegen.chain.chain import Chain, Mode, Segment, SegmentOperand, derive

__all__ = ["Chain", "Mode", "Segment", "SegmentOperand", "derive"]
