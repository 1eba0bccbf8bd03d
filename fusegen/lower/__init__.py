"""Lowering: turns a program into lines of code and a schedule, around which the templates put loops."""

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
