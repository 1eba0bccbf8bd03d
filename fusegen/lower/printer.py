"""Prints a sympy expression as one line of C++.

The printer knows syntax; which function computes an atom is the business of the header that
defines `Math` (`templates/include/fusegen/elementary.h`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import sympy as sp
from sympy.core.relational import Relational

from fusegen import atoms
from fusegen.lower.intervals import Fitted, FittedFormula
from fusegen.lower.stage import FittedBranch, FittedFunction

#: What `Math` calls each atom.
_FUNCTIONS: dict[type[sp.Basic], str] = {
    atoms.absolute: "absolute",
    atoms.expm1: "expm1",
    atoms.log1p: "log1p",
    atoms.normcdf: "normcdf",
    atoms.normpdf: "normpdf",
    atoms.power: "pow",
    atoms.sech2: "sech2",
    atoms.sigmoid: "sigmoid",
    atoms.sign: "sign",
    atoms.softplus: "softplus",
    atoms.tanh: "tanh",
    sp.cos: "cos",
    sp.erf: "erf",
    sp.exp: "exp",
    sp.log: "log",
    sp.sin: "sin",
}

_SUM, _PRODUCT, _UNARY, _ATOM = range(4)  # how tightly a piece of code binds
_SPECIAL: dict[int, tuple[str, int]] = {
    1: ("T(INFINITY)", _ATOM),
    -1: ("-T(INFINITY)", _UNARY),
    0: ("T(NAN)", _ATOM),
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
        names: the C++ spelling of each symbol.
        weight: orders the terms of a sum, heaviest first; large cancelling terms must meet before
            small ones are added, so a sum starts with what varies most.
        fitted: the names of the fitted formulas, by number.
    """

    def __init__(
        self,
        names: Mapping[sp.Symbol, str],
        weight: Callable[[sp.Expr], int],
        fitted: Sequence[str] = (),
    ) -> None:
        self._names = names
        self._weight = weight
        self.fitted = fitted

    def __call__(self, expr: sp.Expr) -> str:
        """Return the code of an expression."""
        return self._print(sp.sympify(expr))[0]

    def _wrapped(self, expr: sp.Expr, level: int) -> str:
        code, binding = self._print(expr)
        return code if binding >= level else f"({code})"

    def _print(self, expr: sp.Expr) -> tuple[str, int]:
        if expr.is_Symbol:
            return self._names[expr], _ATOM
        if isinstance(expr, atoms.Special):
            return _SPECIAL[int(expr.args[0])]
        if not expr.free_symbols:
            value = float(expr.evalf(20))
            return (literal(value), _ATOM) if value >= 0 else (f"-{literal(-value)}", _UNARY)
        if expr.is_Add:
            return self._sum(expr), _SUM
        if expr.is_Mul:
            return self._product(expr)
        if expr.is_Pow:
            return self._power(expr)
        if isinstance(expr, sp.Piecewise):
            return self._select(expr), _ATOM
        if isinstance(expr, Fitted):
            which, argument = expr.args
            return f"{self.fitted[int(which)]}({self(argument)})", _ATOM
        if expr.func is sp.exp and (pair := self._shifted(expr.args[0])):
            return f"Math::exp_difference({pair[0]}, {pair[1]})", _ATOM
        if expr.func in _FUNCTIONS:
            arguments = ", ".join(self(arg) for arg in expr.args)
            return f"Math::{_FUNCTIONS[expr.func]}({arguments})", _ATOM
        raise TypeError(f"the printer does not know {expr.func.__name__} in {expr}")

    def _shifted(self, expr: sp.Expr) -> tuple[str, str] | None:
        """Return a and b of a - b where b varies less, such as a row's maximum, or None."""
        if not expr.is_Add or len(expr.args) != 2:
            return None
        a, b = sorted(expr.args, key=lambda term: -self._weight(term))
        if not b.could_extract_minus_sign() or self._weight(a) == self._weight(b):
            return None
        return self(a), self(-b)

    def _sum(self, expr: sp.Expr) -> str:
        def rank(term: sp.Expr) -> tuple[bool, int, bool, bool, str]:
            negative = term.could_extract_minus_sign()
            return (
                term.is_number,
                -self._weight(term),
                not (-term if negative else term).is_Symbol,
                negative,
                str(term),
            )

        terms = sorted(expr.args, key=rank)
        if len(terms) == 2 and terms[0].could_extract_minus_sign():
            terms.reverse()
        code = ""
        for term in terms:
            if term.could_extract_minus_sign() and code:
                code += f" - {self._wrapped(-term, _PRODUCT)}"
            else:
                code += f" + {self._wrapped(term, _SUM)}" if code else self._wrapped(term, _SUM)
        return code

    def _product(self, expr: sp.Expr) -> tuple[str, int]:
        coefficient, factors = expr.as_coeff_mul()
        if coefficient.is_negative:
            code, binding = self._print(-expr)
            return f"-{code if binding >= _PRODUCT else f'({code})'}", _PRODUCT
        above: list[str] = [] if coefficient == 1 else [self(coefficient)]
        below: list[str] = []
        for factor in sorted(factors, key=lambda f: (-self._weight(f), not f.is_Symbol, str(f))):
            if factor.is_Pow and factor.exp.is_number and factor.exp == -1:
                below.append(self._wrapped(factor.base, _ATOM))
            else:
                above.append(self._wrapped(factor, _UNARY))
        if not above:
            return f"Math::inverse({' * '.join(below)})", _ATOM
        code = " * ".join(above)
        for divisor in below:
            code += f" / {divisor}"
        return code, _PRODUCT

    def _power(self, expr: sp.Expr) -> tuple[str, int]:
        base, exponent = expr.as_base_exp()
        if exponent.is_Integer:
            n = int(exponent)
            if n < 0:
                return f"Math::inverse({self(base ** (-n))})", _ATOM
            if base.is_Symbol and n == 2:
                return f"{self(base)} * {self(base)}", _PRODUCT
            return f"power<{n}>({self(base)})", _ATOM
        if exponent == sp.Rational(1, 2):
            return f"Math::sqrt({self(base)})", _ATOM
        if exponent == sp.Rational(-1, 2):
            return f"Math::rsqrt({self(base)})", _ATOM
        if exponent.is_Rational and exponent.q == 2:  # powers of roots cost less than pow
            root = "sqrt" if exponent > 0 else "rsqrt"
            return f"power<{abs(exponent.p)}>(Math::{root}({self(base)}))", _ATOM
        return f"Math::pow({self(base)}, {self(exponent)})", _ATOM

    def _select(self, expr: sp.Piecewise) -> str:
        *cases, (last, always) = expr.args
        if always is not sp.true:
            raise TypeError(f"a piecewise expression needs a last case that always holds: {expr}")
        code = self._wrapped(last, _SUM)
        for value, condition in reversed(cases):
            code = f"({self._condition(condition)} ? {self(value)} : {code})"
        return code

    def _condition(self, condition: sp.Basic) -> str:
        if isinstance(condition, Relational):
            return f"{self(condition.lhs)} {condition.rel_op} {self(condition.rhs)}"
        joint = {sp.And: " && ", sp.Or: " || "}.get(condition.func)
        if joint is None:
            raise TypeError(f"the printer does not know the condition {condition}")
        return joint.join(f"({self._condition(c)})" for c in sorted(condition.args, key=str))


def fitted_function(formula: FittedFormula) -> FittedFunction:
    """Return a fitted formula as code."""
    printer = Printer({formula.symbol: "x"}, lambda _: 1)
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
        exact=printer(formula.expr),
    )
