"""Formulas of a spec: text -> sympy, by a grammar of known functions, numbers and names.

`ast.parse` reads the text, and an allow-list decides which nodes its tree may have. Nothing is evaluated as
Python. Constants are folded as they appear. So an overflow, a division by zero or a complex number is
reported at its place, and no power can grow without bound.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from typing import Any

import mpmath
import sympy as sp

from fusegen.atoms import (
    ATOMS,
    Let,
    Quoted,
    RowMax,
    RowShift,
    RowSum,
    Special,
    absolute,
    let,
    raised,
    where,
)
from fusegen.atoms.constants import DIGITS, MAX_EXPONENT, number, parts, problem, value_of
from fusegen.atoms.values import evaluate
from fusegen.base.errors import nearest
from fusegen.ops import find
from fusegen.spec.formula.functions import functions
from fusegen.spec.formula.syntax import MADE_OF, FormulaError, read_tree

__all__ = ["FormulaError", "number", "parse"]

#: How deep operations may nest; a sum or a product of many terms is one level.
MAX_DEPTH = 50
#: An argument of a function with more parts than this becomes a node. sympy asks whether an argument is real,
#: and the answer takes time exponential in the depth of products of sums.
MAX_ARGUMENT = 24
#: A product of more variable factors is built from shorter products: the derivative of n factors has n
#: products.
MAX_FACTORS = 8

_COMPARISONS: dict[type[ast.cmpop], Any] = {
    ast.Lt: sp.Lt,
    ast.LtE: sp.Le,
    ast.Gt: sp.Gt,
    ast.GtE: sp.Ge,
}
_ALLOWED = (
    sp.Add, sp.Mul, sp.Pow, sp.Number, sp.NumberSymbol, sp.Symbol, sp.Piecewise,
    sp.functions.elementary.piecewise.ExprCondPair, sp.core.relational.Relational,
    sp.logic.boolalg.BooleanAtom, RowSum, RowMax, RowShift, Let, Quoted, Special,
)  # fmt: skip
#: What stands for the arguments of a function whose value at numbers is asked for.
_PLACES = sp.symbols("a:9", real=True)


def parse(text: str, symbols: Mapping[str, sp.Expr]) -> sp.Expr:
    """Return the expression of a formula.

    Args:
        text: the formula, such as "x * tanh(softplus(x))".
        symbols: the symbol of each name; `pi` and `functions()` are also known.

    Raises:
        FormulaError: if the text is not a formula, or a constant in it is infinite, complex or huge.
    """
    tree, indent = read_tree(text)
    with mpmath.workdps(DIGITS):
        expr = _Reader(symbols, text, indent).expression(tree, 0)
    for part in parts(expr):
        if not isinstance(part, _ALLOWED) and part.func not in ATOMS:
            raise FormulaError(f"{part} is not among the functions that fusegen knows", indent + 1)
    return expr


class _Reader:
    """Walks the syntax tree of one formula."""

    def __init__(self, symbols: Mapping[str, sp.Expr], text: str, indent: int) -> None:
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
            return self._symbols[node.id]
        if node.id == "pi":
            return sp.pi
        if node.id in self._functions:
            raise self._error(node, f"{node.id} is a function: write {node.id}(...)")
        raise self._error(
            node, f"unknown name {node.id!r}{nearest(node.id, [*self._symbols, 'pi'])}"
        )

    def _sum(self, node: ast.BinOp, depth: int) -> sp.Expr:
        first, rest = _spine(node, (ast.Add, ast.Sub))
        terms = [self.expression(first, depth)]
        for operator, right in rest:
            term = self.expression(right, depth)
            terms.append(term if isinstance(operator, ast.Add) else -term)
        return self._checked(node, sp.Add(*terms))

    def _product(self, node: ast.BinOp, depth: int) -> sp.Expr:
        first, rest = _spine(node, (ast.Mult, ast.Div))
        factors = [_named("factor", self.expression(first, depth), MAX_ARGUMENT)]
        for operator, right in rest:
            factor = _named("factor", self.expression(right, depth), MAX_ARGUMENT)
            if isinstance(operator, ast.Div):
                if value_of(factor) == 0:
                    raise self._error(right, "division by zero")
                factor = 1 / factor
            factors.append(factor)
        return self._checked(node, _grouped(sp.Mul(*factors)))

    def _power(self, node: ast.BinOp, depth: int) -> sp.Expr:
        base = _named("base", self.expression(node.left, depth), MAX_ARGUMENT)
        exponent = _named("exponent", self.expression(node.right, depth), MAX_ARGUMENT)
        b, e = value_of(base), value_of(exponent)
        if e is None:
            if b is not None and b <= 0:
                raise self._error(
                    node, f"a power of {base} with a variable exponent is no real number"
                )
            named = _named("base", base, 1), _named("exponent", exponent, 1)
            return self._checked(node, raised(*named))
        if abs(e) > MAX_EXPONENT:
            raise self._error(node.right, f"the exponent is too large: at most {MAX_EXPONENT}")
        if exponent.is_Float and 2 * e == int(2 * e):
            exponent = sp.Rational(int(2 * e), 2)  # x**0.5 is sqrt(x)
        if b is None:
            return self._checked(node, base**exponent)
        if b == 0 and e < 0:
            raise self._error(node, "division by zero")
        return self._constant(node, mpmath.mpmathify(b) ** e, base**exponent)

    def _call(self, node: ast.Call, depth: int) -> sp.Expr:
        if not isinstance(node.func, ast.Name) or node.func.id not in self._functions:
            if isinstance(node.func, ast.Name) and node.func.id not in self._symbols:
                word = node.func.id
                near = nearest(word, self._functions)
                if find(word):
                    near = f": it is an op, so a step of its own: - {word}"
                raise self._error(node, f"unknown function {word!r}{near}")
            raise self._error(node, "this is no function to call: a product is written with *")
        name = node.func.id
        called = self._functions[name]
        if node.keywords:
            raise self._error(node, f"the arguments of {name} have no names")
        if len(node.args) != called.arity:
            two = name in ("max", "min")
            hint = ": it reduces a row; for two values, where(a > b, a, b)" if two else ""
            raise self._error(
                node, f"{name} takes {called.arity}, not {len(node.args)} arguments{hint}"
            )
        if name == "where":
            value, other = (self.expression(arg, depth) for arg in node.args[1:])
            return self._checked(node, where(self._condition(node.args[0], depth), value, other))
        arguments = [self.expression(arg, depth) for arg in node.args]
        values = [value_of(argument) for argument in arguments]
        if None in values:
            if name == "exp":
                self._check_logarithms(node, arguments[0])
            named = (_named("argument", argument, MAX_ARGUMENT) for argument in arguments)
            return self._checked(node, called.function(*named))
        written = f"{name}({', '.join(map(str, arguments))})"
        if not called.pointwise:
            raise self._error(node, f"{written} reduces a constant")
        given = dict(zip(_PLACES, values, strict=False))
        try:
            result = evaluate(called.function(*given), given)
        except (ValueError, ZeroDivisionError):
            raise self._error(node, f"{written} is not finite") from None
        exact = None if name == "exp" else called.function(*arguments)
        return self._constant(node, result, exact)

    def _condition(self, node: ast.expr, depth: int) -> Any:
        if not isinstance(node, ast.Compare) or len(node.ops) != 1:
            raise self._error(node, "where starts with one comparison: where(x > 0, value, other)")
        relation = _COMPARISONS.get(type(node.ops[0]))
        if relation is None:
            raise self._error(node, "a comparison is < <= > or >=")
        left = self.expression(node.left, depth)
        right = self.expression(node.comparators[0], depth)
        if left.has(sp.Piecewise) or right.has(sp.Piecewise):  # sympy would nest the conditions
            raise self._error(node, "a comparison cannot contain where")
        if value_of(left) is not None and value_of(right) is not None:
            return relation(left, right)
        # A name for each side: bringing longer ones into a normal form may take sympy for ever.
        return relation(_named("compared", left, 1), _named("compared", right, 1), evaluate=False)

    def _constant(self, node: ast.expr, value: Any, exact: sp.Expr | None) -> sp.Expr:
        """Return a constant, exact if it is rational, else as the nearest double."""
        if isinstance(value, mpmath.mpc):
            raise self._error(node, "a constant that is no real number")
        if not abs(value) <= sys.float_info.max:
            raise self._error(node, "a constant that is not finite, or too large for a double")
        if exact is not None and exact.is_Rational:
            return self._checked(node, exact)
        return number(float(value))

    def _check_logarithms(self, node: ast.Call, argument: sp.Expr) -> None:
        """Refuse exp(n log(y)) for a large n: sympy makes y**n of it."""
        for term in sp.Add.make_args(argument):
            if term.has(sp.log) and abs(term.as_coeff_Mul()[0]) > MAX_EXPONENT:
                raise self._error(node, f"a power with an exponent above {MAX_EXPONENT}")

    def _checked(self, node: ast.expr, expr: sp.Expr) -> sp.Expr:
        """Return the expression if it is finite, real and of sane size everywhere."""
        wrong = problem(expr)
        if wrong:
            raise self._error(node, wrong)
        # sympy makes Abs of sqrt(x**2).
        return expr.replace(sp.Abs, absolute) if expr.has(sp.Abs) else expr

    def _error(self, node: ast.expr, message: str) -> FormulaError:
        before = self._text[: self._indent + node.col_offset]  # Python counts bytes
        return FormulaError(message, len(before.decode()) + 1)


def _named(name: str, expr: sp.Expr, size: int) -> sp.Expr:
    """Make an expression with more parts than `size` a node of its own, like a reduction."""
    is_node = isinstance(expr, RowSum | RowMax) or value_of(expr) is not None
    return expr if is_node or len(list(parts(expr))) <= size else let(name, expr)


def _grouped(product: sp.Expr) -> sp.Expr:
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


def _spine(
    node: ast.expr, operators: tuple[type[ast.operator], ...]
) -> tuple[ast.expr, list[tuple[ast.operator, ast.expr]]]:
    """Return the first operand of a chain of equal operators, and the rest."""
    rest: list[tuple[ast.operator, ast.expr]] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, operators):
        rest.append((node.op, node.right))
        node = node.left
    return node, rest[::-1]
