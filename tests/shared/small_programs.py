"""Programs of one formula, for tests that need no spec."""

from __future__ import annotations

import sympy as sp

from fusegen.lower import Kernel
from fusegen.program import Kind, Output, Program
from fusegen.program.builder import Builder
from fusegen.program.from_formula import formula_value

X, W = sp.Symbol("x", real=True), sp.Symbol("w", real=True)


def program_of(formula: sp.Expr, *, weight: Kind = Kind.COL) -> Program:
    """Return y = formula(x, w)."""
    b = Builder()
    x = b.input("x", Kind.FULL)
    b.input("w", weight)
    return Program("f", tuple(b.inputs), {"y": Output(formula_value(b, "op", formula), x)})


def program_of_steps(*formulas: sp.Expr) -> Program:
    """Return a chain: each formula of x takes what the one before it gave."""
    b = Builder()
    x = value = b.input("x", Kind.FULL)
    for place, formula in enumerate(formulas):
        value = formula_value(b, f"step{place}", formula.xreplace({X: value.symbol}))
    return Program("f", tuple(b.inputs), {"y": Output(value, x)})


def element_lines(kernel: Kernel) -> list[str]:
    """Return what a kernel computes for each element, as text."""
    return [f"{line.name} = {line.code}" for stage in kernel.stages for line in stage.lines]
