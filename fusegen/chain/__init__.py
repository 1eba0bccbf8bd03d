"""Chain: turns a spec into programs and kernels, one set for each segment of the chain that shares a layout.

A `Spec` becomes `Chains`, one for each product in it. A `Chain` has segments, each with its programs, and
through `fusegen.lower` its kernels, for training and for evaluation. `fusegen.render` writes files from them.
"""

from __future__ import annotations

from fusegen.chain.chain import Chain, Mode, Segment, SegmentOperand, derive
from fusegen.chain.chains import Chains, derive_all

__all__ = ["Chain", "Chains", "Mode", "Segment", "SegmentOperand", "derive", "derive_all"]
