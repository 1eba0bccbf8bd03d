"""Lowering: a program becomes the lines of code and the schedule that the templates put in loops."""

from __future__ import annotations

from fusegen.lower.kernel.code import Code, Line, Variable
from fusegen.lower.kernel.kernel import Kernel, MemoryFormat
from fusegen.lower.kernel.operand import KernelOperand
from fusegen.lower.kernel.results import Result
from fusegen.lower.kernel.stage import RowReduction, Stage
from fusegen.lower.lowering import LoweringError, lower

__all__ = [
    "Code",
    "Kernel",
    "KernelOperand",
    "Line",
    "LoweringError",
    "MemoryFormat",
    "Result",
    "RowReduction",
    "Stage",
    "Variable",
    "lower",
]
