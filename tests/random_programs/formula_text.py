"""Random formulas, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sympy as sp

from fusegen.spec.formula import FormulaError, parse
from fusegen.spec.formula.functions import functions
from random_programs.attributes import number
from random_programs.formulas import names_of

if TYPE_CHECKING:
    from random_programs.generate import Generator

_SMOOTH = (
    "tanh",
    "sigmoid",
    "sin",
    "cos",
    "erf",
    "softplus",
    "normcdf",
    "normpdf",
    "sech2",
    "abs",
    "sign",
    "atan",
    "asinh",
    "erfc",
    "round",
)
_OF_ROWS = (
    "amax",
    "amin",
    "max",
    "min",
    "mean",
    "sum",
    "var",
    "std",
    "norm",
    "logsumexp",
    "softmax",
    "log_softmax",
)


def _share_a_factor(a: str, b: str, is_x: str) -> bool:
    """Whether a quotient of two formulas is simplified, where a name is x's."""
    factors = []
    for text in (a, b):
        names = {n: "x" if n == is_x else n for n in names_of(text) - {*functions(), "pi"}}
        try:
            expr = parse(text, {n: sp.Symbol(s, real=True) for n, s in names.items()})
        except FormulaError:
            return True
        factors.append({base for base in expr.as_powers_dict() if base.free_symbols})
    return bool(factors[0] & factors[1])


class Formulas:
    """Draws a formula for a step.

    Args:
        draft: the program that it belongs to.
        rows: whether it may have functions of a row.
    """

    def __init__(self, draft: Generator, *, rows: bool) -> None:
        self.draft, self.rng, self.rows = draft, draft.rng, rows

    def text(self) -> str:
        """Return a formula of x."""
        for _ in range(20):
            text = self._term(self.rng.choice((1, 2, 2, 3)))
            if "x" in text.replace("exp", "").replace("amax", "").replace("max", ""):
                return text
        return "x * tanh(x)"

    def _leaf(self) -> str:
        rng = self.rng
        draw = rng.random()
        if draw < 0.65:
            return "x"
        if draw < 0.78:
            value = number(rng)
            return f"({value})" if value < 0 else str(value)
        if draw < 0.82:
            return "pi"
        found = self.draft.operand(None, "")
        return found if isinstance(found, str) else "x"

    def _term(self, depth: int) -> str:
        rng = self.rng
        if depth == 0:
            return self._leaf()
        draw = rng.random()
        a = self._term(depth - 1)
        if draw < 0.25:
            function = rng.choice(_SMOOTH)
            return f"{function}({'x' if a == 'pi' else a})"  # sin(pi) is 0 here, and not in torch
        if draw < 0.5:
            return f"({a} {rng.choice('+-*')} {self._term(depth - 1)})"
        if draw < 0.58:
            b = self._term(depth - 1)
            # They are divided by it here, also where torch has 0 / 0.
            if _share_a_factor(a, b, self.draft.name_of_x()):
                b = "(2 + cos(x))"
            return rng.choice(
                (f"{a} / (1 + ({b})**2)", f"({a}) / (2 + cos({b}))", f"({a}) / ({b})")
            )
        if draw < 0.7:
            return rng.choice(
                (
                    f"log(0.5 + abs({a}))",
                    f"sqrt(({a})**2 + 0.25)",
                    f"rsqrt(1 + ({a})**2)",
                    f"log1p(abs({a}))",
                    f"exp(-abs({a}))",
                    f"expm1(tanh({a}))",
                    f"({a})**2",
                    f"({a})**3",
                    f"abs({a})**1.5",
                    f"(0.5 + abs({a}))**{self._exponent()}",
                )
            )
        if draw < 0.78:
            compare, leaf = rng.choice(("<", "<=", ">", ">=")), self._leaf()
            # sympy knows the answer, but for NaN.
            if leaf == a or {leaf, a} == {"x", self.draft.name_of_x()}:
                leaf = "0.5"
            return f"where({a} {compare} {leaf}, {self._term(depth - 1)}, {self._term(depth - 1)})"
        if not self.rows:
            return f"{rng.choice(_SMOOTH)}({a})"
        function = f"{rng.choice(_OF_ROWS)}({a})"
        return rng.choice(
            (
                f"({function} + x)",
                f"x - {function}",
                f"x * {function}",
                f"(x / (1 + {function}**2))",
                function,
            )
        )

    def _exponent(self) -> str:
        rng = self.rng
        return (
            str(self.draft.argument(1.5))
            if rng.random() < 0.3
            else rng.choice(("0.5", "(-1)", "2.5", "(-0.5)"))
        )
