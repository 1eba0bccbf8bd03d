"""Keeps what a formula says in pieces that sympy handles in short time."""

from __future__ import annotations

import ast
from itertools import islice

import sympy as sp

from fusegen.atoms import Let, RowMax, RowSum, let
from fusegen.atoms.constants import parts, value_of

__all__ = ["MAX_ARGUMENT", "MAX_PARTS", "grouped", "named", "spine", "too_long"]

#: An argument of a function with more parts than this becomes a node. sympy asks whether an argument is real,
#: and the answer takes time exponential in the depth of products of sums.
MAX_ARGUMENT = 24
#: A product of more variable factors is built from shorter products: the derivative of n factors has n
#: products.
MAX_FACTORS = 8
#: The most parts of a formula, with each call written out: a call of an op repeats its argument, so calls in
#: calls grow exponentially.
MAX_PARTS = 20_000


def too_long(expr: sp.Expr) -> bool:
    """Return whether an expression has more than `MAX_PARTS` parts."""
    return next(islice(parts(expr), MAX_PARTS, None), None) is not None


def named(name: str, expr: sp.Expr, size: int) -> sp.Expr:
    """Make an expression with more parts than `size` a node of its own, like a reduction."""
    is_node = isinstance(expr, RowSum | RowMax) or value_of(expr) is not None
    return expr if is_node or len(list(parts(expr))) <= size else let(name, expr)


def grouped(product: sp.Expr) -> sp.Expr:
    """Return a product of many factors as a product of few, each of which is a product too."""
    while product.is_Mul:
        longer = [f for f in product.args if not (f.is_Atom or isinstance(f, Let))]
        groups = longer if len(longer) > MAX_FACTORS else list(product.args)
        if len(groups) <= MAX_FACTORS:
            break
        rest = [f for f in product.args if f not in groups]
        half = MAX_FACTORS // 2
        parts_of = (sp.Mul(*groups[n : n + half]) for n in range(0, len(groups), half))
        product = sp.Mul(*rest, *(let("factor", part) for part in parts_of))
    return product


def spine(
    node: ast.expr, operators: tuple[type[ast.operator], ...]
) -> tuple[ast.expr, list[tuple[ast.operator, ast.expr]]]:
    """Return the first operand of a chain of equal operators, and the rest."""
    rest: list[tuple[ast.operator, ast.expr]] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, operators):
        rest.append((node.op, node.right))
        node = node.left
    return node, rest[::-1]
