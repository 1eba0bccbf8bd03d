"""Lowering: a program becomes the lines of code and the schedule that the templates put in loops."""

from __future__ import annotations

from fusegen.lower.kernel import Field, Kernel, Line, Result, RowReduction, Stage
from fusegen.lower.lowering import LoweringError, lower

__all__ = ["Field", "Kernel", "Line", "LoweringError", "Result", "RowReduction", "Stage", "lower"]
