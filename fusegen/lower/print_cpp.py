"""Prints a sympy expression as one line of C++.

The printer knows syntax. Which function computes an atom is declared with it (`Atom.cpp`), mostly one of the
header that defines `Math` (`templates/include/fusegen/elementary.h`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy as sp
from sympy.core.relational import Relational

from fusegen import atoms
from fusegen.atoms import ATOMS
from fusegen.lower.arithmetic import (
    Arranged,
    Difference,
    Fused,
    Inverse,
    Negative,
    Power,
    Product,
    Quotient,
    Rsqrt,
    Sqrt,
    Sum,
    Text,
    TimesPower,
    Weight,
    arranged,
)
from fusegen.lower.kernel.code import Code, Variable
from fusegen.lower.kernel.fitted_function import FittedBranch, FittedFunction
from fusegen.lower.polynomials.of_formulas import Fitted, FittedFormula

_SUM, _PRODUCT, _UNARY, _ATOM = range(4)  # how tightly a piece of code binds
#: Of each operation between two operands: its sign, how tightly it binds, and what its operands must.
_INFIX: dict[type[Arranged], tuple[str, int, int, int]] = {
    Sum: ("+", _SUM, _SUM, _PRODUCT),
    Difference: ("-", _SUM, _SUM, _PRODUCT),
    Product: ("*", _PRODUCT, _PRODUCT, _UNARY),
}
#: The functions that compute the other operations.
_OPERATIONS: dict[type[Arranged], str] = {
    Fused: "Math::fma",
    Inverse: "Math::inverse",
    Quotient: "Math::divide",
    Rsqrt: "Math::rsqrt",
    Sqrt: "Math::sqrt",
}
_SPECIAL: dict[int, tuple[str, int]] = {
    1: ("T(INFINITY)", _ATOM),
    -1: ("-T(INFINITY)", _UNARY),
    0: ("T(NAN)", _ATOM),
    2: ("T(0)", _ATOM),
}


def literal(value: float) -> str:
    """Return a number as a literal of the kernel's scalar type `T`."""
    text = (
        repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
    )
    return f"T({text})"


class Printer:
    """Prints expressions over symbols that have names in C++.

    Args:
        variables: the variable that each symbol is in C++.
        weight: how many axes an expression varies along, by which its arithmetic is arranged.
        fitted: the names of the fitted formulas, by number.
        text: an expression as text, by which the rest of its arithmetic is arranged.
    """

    def __init__(
        self,
        variables: Mapping[sp.Symbol, Variable],
        weight: Weight,
        fitted: Sequence[str] = (),
        text: Text = str,
    ) -> None:
        self._variables = variables
        self._weight = weight
        self._text = text
        self.fitted = fitted
        self._reads: set[Variable] = set()
        self._sums: set[sp.Symbol] = set()

    def __call__(self, expr: sp.Expr, symbol: sp.Symbol | None = None) -> Code:
        """Return the code of an expression, which a symbol may stand for from now on."""
        expr = arranged(sp.sympify(expr), self._weight, self._text)
        self._reads = set()
        if symbol is not None and self._is_sum(expr):
            self._sums.add(symbol)
        text, _ = self._print(expr)
        return Code(text, frozenset(self._reads), _calls(expr))

    def _is_sum(self, expr: sp.Expr) -> bool:
        """Whether an expression is a sum or a difference, whatever its sign."""
        if isinstance(expr, Negative):
            return self._is_sum(expr.args[0])
        return isinstance(expr, Sum | Difference | Fused) or expr in self._sums

    def _wrapped(self, expr: sp.Expr, level: int) -> str:
        code, binding = self._print(expr)
        return code if binding >= level else f"({code})"

    def _code(self, expr: sp.Expr) -> str:
        return self._print(expr)[0]

    def _print(self, expr: sp.Expr) -> tuple[str, int]:
        if expr.is_Symbol:
            self._reads.add(self._variables[expr])
            return str(self._variables[expr]), _ATOM
        if isinstance(expr, atoms.Special):
            return _SPECIAL[int(expr.args[0])]
        if isinstance(expr, Arranged):
            return self._operation(expr)
        if not expr.free_symbols:
            value = float(expr.evalf(20))
            return (literal(value), _ATOM) if value >= 0 else (f"-{literal(-value)}", _UNARY)
        if isinstance(expr, sp.Piecewise):
            return self._select(expr), _ATOM
        if isinstance(expr, Fitted):
            which, argument = expr.args
            return f"{self.fitted[int(which)]}({self._code(argument)})", _ATOM
        if expr.func in ATOMS:
            atom = ATOMS[expr.func]
            of_sum = atom.steep and self._is_sum(expr.args[0])
            function = atom.cpp.replace("Math::", "Math::OfSum::") if of_sum else atom.cpp
            return self._call(function, expr.args), _ATOM
        raise TypeError(f"the printer does not know {expr.func.__name__} in {expr}")

    def _call(self, function: str, args: Sequence[sp.Expr]) -> str:
        """Print a call of a function, or what an expression of `{0}` is for the arguments."""
        if "{" in function:
            return f"({function.format(*(self._wrapped(arg, _ATOM) for arg in args))})"
        return f"{function}({', '.join(self._code(arg) for arg in args)})"

    def _operation(self, expr: Arranged) -> tuple[str, int]:
        """Print an operation; what stands on the right of - and / binds tighter than it."""
        if type(expr) in _INFIX:
            sign, level, left, right = _INFIX[type(expr)]
            a, b = expr.args
            return f"{self._wrapped(a, left)} {sign} {self._wrapped(b, right)}", level
        if isinstance(expr, Negative):
            code, binding = self._print(expr.args[0])  # (-a) * b is -(a * b), to the bit
            return f"-{code if binding >= _PRODUCT else f'({code})'}", min(binding, _UNARY)
        if isinstance(expr, Power):
            base, exponent = expr.args
            return f"power<{exponent}>({self._code(base)})", _ATOM
        if isinstance(expr, TimesPower):
            factor, base, exponent = expr.args
            return f"times_power<{exponent}>({self._code(factor)}, {self._code(base)})", _ATOM
        return self._call(_OPERATIONS[type(expr)], expr.args), _ATOM

    def _select(self, expr: sp.Piecewise) -> str:
        *cases, (last, always) = expr.args
        if always is not sp.true:
            raise TypeError(f"a piecewise expression needs a last case that always holds: {expr}")
        code = self._code(last)
        for value, condition in reversed(cases):
            code = f"Math::where({self._condition(condition)}, {self._code(value)}, {code})"
        return code

    def _condition(self, condition: sp.Basic) -> str:
        if isinstance(condition, Relational):
            return f"{self._code(condition.lhs)} {condition.rel_op} {self._code(condition.rhs)}"
        joint = {sp.And: " && ", sp.Or: " || "}.get(condition.func)
        if joint is None:
            raise TypeError(f"the printer does not know the condition {condition}")
        return joint.join(f"({self._condition(c)})" for c in sorted(condition.args, key=str))


def _calls(expr: sp.Basic) -> int:
    """Return how many mathematical functions an expression calls; arithmetic is none."""
    if isinstance(expr, Arranged):
        own = int(type(expr) in _OPERATIONS and not isinstance(expr, Fused | Quotient))
    elif not expr.free_symbols:
        return 0
    else:
        own = ATOMS[expr.func].calls if expr.func in ATOMS else 0
    return own + sum(map(_calls, expr.args))


def fitted_function(formula: FittedFormula) -> FittedFunction:
    """Return a fitted formula as code."""
    printer = Printer({formula.symbol: Variable("x")}, lambda _: 1)
    branches = []
    for precision, polynomial in formula.polynomials.items():
        code = polynomial.horner("square" if formula.squared else "x")
        branches.append(
            FittedBranch(precision, polynomial.accuracy, formula.outside.format(p=code))
        )
    plain = formula.expr.xreplace({formula.symbol: sp.Symbol("x", real=True)})
    return FittedFunction(
        name=formula.name,
        formula=f"{plain} for x in {formula.reach}",
        squared=formula.squared,
        branches=tuple(branches),
        exact=str(printer(formula.expr)),
    )
