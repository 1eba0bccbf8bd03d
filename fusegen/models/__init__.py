"""Models: a graph that torch captured -> regions, each a spec -> the same graph, fused.

In: a graph of torch functions, from `torch.compile`. Out: the same graph, in which each region is one call of
a generated package, and a report that says what was fused and what was not, with the reason.
"""

from __future__ import annotations

from fusegen.models.backend import FusegenBackend
from fusegen.models.background import wait_for_builds
from fusegen.models.fused_model import fuse, load_fused, report
from fusegen.models.fusion_report import Report

__all__ = ["FusegenBackend", "Report", "fuse", "load_fused", "report", "wait_for_builds"]
