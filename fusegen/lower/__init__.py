"""Lowering: a program becomes the lines of code and the schedule that the templates put in loops."""

from __future__ import annotations

from fusegen.lower.kernel.kernel import Kernel, MemoryFormat
from fusegen.lower.kernel.stage import Field, Line, Result, RowReduction, Stage
from fusegen.lower.lowering import LoweringError, lower

__all__ = [
    "Field",
    "Kernel",
    "Line",
    "LoweringError",
    "MemoryFormat",
    "Result",
    "RowReduction",
    "Stage",
    "lower",
]
