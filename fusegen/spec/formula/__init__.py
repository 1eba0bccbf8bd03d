"""Formulas in a spec: text becomes an expression of atoms by a grammar. Nothing is ever evaluated.

In: a formula's text and the names it may use. Out: a sympy expression, or an error with its column.
"""

from __future__ import annotations

from fusegen.spec.formula.parser import FormulaError, number, parse

__all__ = ["FormulaError", "number", "parse"]
