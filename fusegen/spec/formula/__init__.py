"""Formulas in a spec: a grammar turns text into an expression of atoms. Nothing is evaluated.

In: a formula's text and the names it may use. Out: a sympy expression, or an error with its column.
"""

from __future__ import annotations

from fusegen.spec.formula.parser import FormulaError, number, parse

__all__ = ["FormulaError", "number", "parse"]
