"""Walks the syntax tree of a formula and makes its expression."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import mpmath
import sympy as sp

from fusegen.atoms import (
    absolute,
    raised,
    together,
    where,
)
from fusegen.atoms.constants import MAX_EXPONENT, number, problem, value_of
from fusegen.atoms.values import evaluate
from fusegen.base.errors import nearest
from fusegen.ops import find
from fusegen.spec.formula.as_written import Product, Sum, apart, power_of
from fusegen.spec.formula.calls import OpCall
from fusegen.spec.formula.functions import Word, functions
from fusegen.spec.formula.pieces import (
    MAX_ARGUMENT,
    MAX_PARTS,
    grouped,
    named,
    spine,
    too_long,
)
from fusegen.spec.formula.syntax import MADE_OF, FormulaError
from fusegen.spec.scope import Names
from fusegen.spec.words import unknown_function

__all__ = ["MAX_DEPTH", "Reader"]

#: How deep operations may nest; a sum or a product of many terms is one level.
MAX_DEPTH = 50

_COMPARISONS: dict[type[ast.cmpop], Any] = {
    ast.Lt: sp.Lt,
    ast.LtE: sp.Le,
    ast.Gt: sp.Gt,
    ast.GtE: sp.Ge,
}
#: What stands for the arguments of a function whose value at numbers is asked for.
_PLACES = sp.symbols("a:9", real=True)


class Reader:
    """Walks the syntax tree of one formula.

    Attributes:
        found: the column of the first mention of each name.
    """

    def __init__(
        self, symbols: Mapping[str, sp.Expr], text: str, indent: int, names: Names
    ) -> None:
        self.found: dict[str, int] = {}
        self._names = names
        self._symbols = symbols
        self._functions = functions()
        self._text = text.encode()
        self._indent = indent

    def expression(self, node: ast.expr, depth: int) -> sp.Expr:
        """Return the expression of a node and everything below it."""
        if depth > MAX_DEPTH:
            raise self._error(node, f"the formula nests more than {MAX_DEPTH} levels deep")
        match node:
            case ast.Constant(value=bool()):
                raise self._error(node, f"{node.value!r} is no number")
            case ast.Constant(value=int(value) | float(value)):
                result = self._number(node, value)
            case ast.Name():
                result = self._name(node)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign):
                result = self.expression(node.operand, depth + 1)
                result = -result if isinstance(sign, ast.USub) else result
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                result = self._sum(node, depth + 1)
            case ast.BinOp(op=ast.Mult() | ast.Div()):
                result = self._product(node, depth + 1)
            case ast.BinOp(op=ast.Pow()):
                result = self._power(node, depth + 1)
            case ast.Call():
                result = self._call(node, depth + 1)
            case ast.Compare():
                raise self._error(node, "a comparison goes first in where(condition, a, b)")
            case ast.IfExp():
                raise self._error(node, "a choice is written where(condition, value, other)")
            case _:
                raise self._error(node, MADE_OF)
        return result

    def _number(self, node: ast.expr, value: float) -> sp.Expr:
        try:
            magnitude = float(value)
        except OverflowError:
            magnitude = float("inf")
        if magnitude == float("inf"):
            raise self._error(node, "the number is too large for a double")
        return sp.Integer(value) if isinstance(value, int) else number(value)

    def _name(self, node: ast.Name) -> sp.Expr:
        if node.id in self._symbols:
            value = self._mentioned(node)
            if value.is_Relational:
                message = f"{node.id} is of bool: write where({node.id}, value, other)"
                raise self._error(node, message)
            return value
        if node.id == "pi":
            return sp.pi
        unnamed = self._names.unnamed.get(node.id)
        if node.id in self._functions or (find(node.id) and not unnamed):
            raise self._error(node, f"{node.id} is a function: write {node.id}(...)")
        if unnamed:
            raise self._error(node, f"unknown name {node.id!r}: {unnamed}")
        near = nearest(node.id, [*self._symbols, "pi"])
        if "did you mean" not in near:
            near = "; declare it under `operands:`, or, if it is a number, under `arguments:`"
            if node.id in self._names.arguments:
                kind = self._names.arguments[node.id].type
                near = f": it is an argument of type {kind}, and a formula takes those of float"
        raise self._error(node, f"unknown name {node.id!r}{near}")

    def _mentioned(self, node: ast.Name) -> sp.Expr:
        """Return what a known name stands for, and note where it stands."""
        column = self.found.get(node.id, node.col_offset)
        self.found[node.id] = min(column, node.col_offset)
        return self._symbols[node.id]

    def _sum(self, node: ast.BinOp, depth: int) -> sp.Expr:
        first, rest = spine(node, (ast.Add, ast.Sub))
        total = Sum(self.expression(first, depth))
        for operator, right in rest:
            term = self.expression(right, depth)
            if term.is_Add and value_of(term) is None:  # x + (m * 1e9 - 1e9)
                term = together(term)
            total.add(term if isinstance(operator, ast.Add) else -term)
        return self._checked(node, total.value)

    def _product(self, node: ast.BinOp, depth: int) -> sp.Expr:
        first, rest = spine(node, (ast.Mult, ast.Div))
        product = Product()
        product.multiply(named("factor", self.expression(first, depth), MAX_ARGUMENT))
        for operator, right in rest:
            factor = named("factor", self.expression(right, depth), MAX_ARGUMENT)
            if isinstance(operator, ast.Div):
                if value_of(factor) == 0:
                    raise self._error(right, "division by zero")
                factor = power_of(factor, sp.Integer(-1))
            product.multiply(factor)
        return self._checked(node, grouped(product.value))

    def _power(self, node: ast.BinOp, depth: int) -> sp.Expr:
        base = named("base", self.expression(node.left, depth), MAX_ARGUMENT)
        exponent = named("exponent", self.expression(node.right, depth), MAX_ARGUMENT)
        b, e = value_of(base), value_of(exponent)
        if e is None:
            if b is not None and b <= 0:
                raise self._error(
                    node, f"a power of {base} with a variable exponent is no real number"
                )
            both = named("base", base, 1), named("exponent", exponent, 1)
            return self._checked(node, raised(*both))
        if abs(e) > MAX_EXPONENT:
            raise self._error(node.right, f"the exponent is too large: at most {MAX_EXPONENT}")
        if exponent.is_Float and 2 * e == int(2 * e):
            exponent = sp.Rational(int(2 * e), 2)  # x**0.5 is sqrt(x)
        if b is None:
            return self._checked(node, power_of(base, exponent))
        if b == 0 and e < 0:
            raise self._error(node, "division by zero")
        return self._constant(node, mpmath.mpmathify(b) ** e, base**exponent)

    def _call(self, node: ast.Call, depth: int) -> sp.Expr:
        called, arguments = self._called(node, depth)
        name = ast.unparse(node.func)
        if name == "where":
            return self._checked(node, called.function(*arguments))
        values = [value_of(argument) for argument in arguments]
        if None in values:
            parted = [named("argument", argument, MAX_ARGUMENT) for argument in arguments]
            return self._checked(node, called.function(*parted))
        written = f"{name}({', '.join(map(str, arguments))})"
        if not called.pointwise:
            raise self._error(node, f"{written} reduces a constant")
        given = dict(zip(_PLACES, values, strict=False))
        try:
            result = evaluate(called.function(*given), given)
        except (ArithmeticError, ValueError):
            raise self._error(node, f"{written} is not finite") from None
        known = name in self._functions and name != "exp"
        exact = called.function(*arguments) if known else None  # of an op it may be without bound
        return self._constant(node, result, exact)

    def _called(self, node: ast.Call, depth: int) -> tuple[Word, list[sp.Expr]]:
        """Return what a call calls, as a function of expressions, and these expressions."""
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        op, called = find(name), self._functions.get(name)
        read = partial(self.expression, depth=depth)
        if op is not None and (called is None or (node.keywords and name != "where")):
            return OpCall(self._names, (name,), op, node, read, self._error).bound()
        if called is None:
            if isinstance(node.func, ast.Attribute):  # torch.sigmoid(x)
                owner, last = ast.unparse(node.func.value), node.func.attr
                given = owner if owner in self._symbols or "(" in owner else "..."
                raise self._error(node, f"a function stands by itself: write {last}({given})")
            if not name or name in self._symbols:
                raise self._error(node, "this is no function to call: a product is written with *")
            raise self._error(node, unknown_function(name, self._functions))
        if node.keywords:
            raise self._error(node, f"the arguments of {name} have no names")
        if len(node.args) != called.arity:
            two = {"max": "maximum", "min": "minimum"}.get(name)
            hint = f": it reduces a row; of two values, {two}(a, b)" if two else ""
            raise self._error(
                node, f"{name} takes {called.arity}, not {len(node.args)} arguments{hint}"
            )
        if name == "where":
            condition, *branches = node.args
            values = [read(branch) for branch in branches]
            chosen = partial(where, self._condition(condition, depth))
            return Word(chosen, 2, pointwise=False), values
        return called, [read(argument) for argument in node.args]

    def _condition(self, node: ast.expr, depth: int) -> Any:
        if isinstance(node, ast.Name) and node.id in self._symbols:
            mask = self._mentioned(node)
            if mask.is_Relational:
                return mask
        if not isinstance(node, ast.Compare) or len(node.ops) != 1:
            raise self._error(
                node,
                "where starts with one comparison, or an operand of bool: where(x > 0, value, other)",
            )
        relation = _COMPARISONS.get(type(node.ops[0]))
        if relation is None:
            raise self._error(node, "a comparison is < <= > or >=")
        left = self.expression(node.left, depth)
        right = apart(self.expression(node.comparators[0], depth), left)
        if left.has(sp.Piecewise) or right.has(sp.Piecewise):  # sympy would nest the conditions
            raise self._error(node, "a comparison cannot contain where")
        if value_of(left) is not None and value_of(right) is not None:
            return relation(left, right)
        # A name for each side: bringing longer ones into a normal form may take sympy for ever.
        return relation(named("compared", left, 1), named("compared", right, 1), evaluate=False)

    def _constant(self, node: ast.expr, value: Any, exact: sp.Expr | None) -> sp.Expr:
        """Return a constant, exact if it is rational, else as the nearest double."""
        if isinstance(value, mpmath.mpc):
            raise self._error(node, "a constant that is no real number")
        if not abs(value) <= sys.float_info.max:
            raise self._error(node, "a constant that is not finite, or too large for a double")
        if exact is not None and exact.is_Rational:
            return self._checked(node, exact)
        return number(float(value))

    def _checked(self, node: ast.expr, expr: sp.Expr) -> sp.Expr:
        """Return the expression if it is finite, real and of sane size everywhere."""
        if too_long(expr):
            message = (
                f"with its calls written out it has more than {MAX_PARTS:,} parts: make steps of it"
            )
            raise self._error(node, message)
        wrong = problem(expr)
        if wrong:
            raise self._error(node, wrong)
        # sympy makes Abs of sqrt(x**2).
        return expr.replace(sp.Abs, absolute) if expr.has(sp.Abs) else expr

    def _error(self, node: ast.expr, message: str) -> FormulaError:
        before = self._text[: self._indent + node.col_offset]  # Python counts bytes
        return FormulaError(message, len(before.decode()) + 1)
