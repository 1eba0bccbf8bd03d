"""Formulas of a spec: text -> sympy, by a grammar of known functions, numbers and names.

`ast.parse` reads the text, and an allow-list decides which nodes its tree may have. Nothing is evaluated as
Python. Constants are folded as they appear. So an overflow, a division by zero or a complex number is
reported at its place, and no power can grow without bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mpmath
import sympy as sp

from fusegen.atoms import (
    ATOMS,
    HALF_FUNCTIONS,
    Let,
    Quoted,
    RowMax,
    RowShift,
    RowSum,
    Special,
)
from fusegen.atoms.constants import DIGITS, number, parts
from fusegen.spec.formula.reader import Reader
from fusegen.spec.formula.syntax import FormulaError, read_tree
from fusegen.spec.scope import Names
from fusegen.spec.yaml import Document

__all__ = ["Formula", "FormulaError", "number", "parse", "read"]

_ALLOWED = (
    sp.Add, sp.Mul, sp.Pow, sp.Number, sp.NumberSymbol, sp.Symbol, sp.Piecewise,
    sp.functions.elementary.piecewise.ExprCondPair, sp.core.relational.Relational,
    sp.logic.boolalg.BooleanAtom, RowSum, RowMax, RowShift, Let, Quoted, Special,
    *HALF_FUNCTIONS,
)  # fmt: skip
#: A spec without names.
_NO_NAMES = Names(Document({}, {(): 1}, None), {}, {})


@dataclass(frozen=True)
class Formula:
    """A formula that was read.

    Args:
        expr: its expression.
        names: the names of values in it, each once, in the order of first mention.
    """

    expr: sp.Expr
    names: tuple[str, ...]


def parse(text: str, symbols: Mapping[str, sp.Expr]) -> sp.Expr:
    """Return the expression of a formula; see `read`."""
    return read(text, symbols).expr


def read(text: str, symbols: Mapping[str, sp.Expr], names: Names = _NO_NAMES) -> Formula:
    """Return the expression of a formula, and its names.

    Args:
        text: the formula, such as "x * tanh(softplus(x))".
        symbols: the symbol of each name, and the condition that an operand of bool is; `pi`, `functions()`
            and ops are also known.
        names: the spec's names: which arguments may be attributes of ops.

    Raises:
        FormulaError: if the text is not a formula, or a constant in it is infinite, complex or huge.
    """
    tree, indent = read_tree(text)
    reader = Reader(symbols, text, indent, names)
    with mpmath.workdps(DIGITS):
        expr = reader.expression(tree, 0)
    for part in parts(expr):
        if not isinstance(part, _ALLOWED) and part.func not in ATOMS:
            raise FormulaError(f"{part} is not among the functions that fusegen knows", indent + 1)
    return Formula(expr, tuple(sorted(reader.found, key=reader.found.__getitem__)))
