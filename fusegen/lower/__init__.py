"""Lowering: a program becomes the lines of code and the schedule that the templates put in loops."""

from __future__ import annotations

from fusegen.lower.kernel import Kernel, Order
from fusegen.lower.lowering import LoweringError, lower
from fusegen.lower.stage import Field, Line, Result, RowReduction, Stage

__all__ = [
    "Field",
    "Kernel",
    "Line",
    "LoweringError",
    "Order",
    "Result",
    "RowReduction",
    "Stage",
    "lower",
]
