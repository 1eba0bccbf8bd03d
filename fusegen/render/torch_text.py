"""Writes a formula as Python text that calls torch's own functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sympy as sp
from sympy.core.relational import Relational

from fusegen import atoms
from fusegen.atoms import ATOMS, TORCH_HALVES, TORCH_REDUCTIONS
from fusegen.atoms.values import constant
from fusegen.render.call_text import call_text

#: The exponents for which torch has a function of its own.
_POWERS: dict[sp.Basic, Callable[..., Any]] = {
    sp.Rational(1, 2): lambda torch, x: torch.sqrt(x),
    sp.Rational(-1, 2): lambda torch, x: torch.rsqrt(x),
    sp.Integer(-1): lambda _, x: 1 / x,
}


class TorchText:
    """Writes expressions as Python text; named parts become assignments before it.

    Args:
        names: the text of each symbol.
        columns: the dims that make up a row.

    Attributes:
        lines: the assignments.
    """

    def __init__(self, names: Mapping[str, str], columns: tuple[int, ...]) -> None:
        self.names, self.columns = names, columns
        self.lines: list[str] = []
        self._assigned: dict[sp.Basic, str] = {}

    def write(self, expr: sp.Basic) -> str:
        """Return an expression's text. The assignments that it needs are in `lines`."""
        if isinstance(expr, atoms.Let):
            return self._assign(expr)
        if expr.is_Symbol:
            return self.names[str(expr)]
        if isinstance(expr, atoms.Special):
            return f'float("{expr.value}")'
        if expr.is_Integer:
            return f"({expr})" if expr.is_negative else str(expr)
        if expr.is_number and (value := constant(expr)) is not None:
            return f"({value!r})"
        if isinstance(expr, sp.Piecewise):
            return self._piecewise(expr)
        if expr.is_Pow and expr.exp in _POWERS:
            return call_text(_POWERS[expr.exp], self.write(expr.base))
        if isinstance(expr, atoms.PartOf):
            value, number = expr.args
            return call_text(TORCH_HALVES[expr.func], self.write(value), number=int(number))
        args = [self.write(arg) for arg in expr.args]
        if expr.is_Add or expr.is_Mul or expr.is_Pow:
            sign = " + " if expr.is_Add else " * " if expr.is_Mul else " ** "
            return f"({sign.join(args)})"
        if expr.func in TORCH_REDUCTIONS:
            return call_text(TORCH_REDUCTIONS[expr.func], *args, dims=self.columns)
        if expr.func in TORCH_HALVES:
            return call_text(TORCH_HALVES[expr.func], *args)
        if len(args) > 1:  # some of torch's functions of two take tensors alone
            args = [self._tensor(arg) for arg in expr.args]
        return call_text(ATOMS[expr.func].torch, *args)

    def _assign(self, expr: atoms.Let) -> str:
        """Assign a named part to a variable at its first use, and return the variable."""
        if expr not in self._assigned:
            text = self.write(expr.value)
            name = f"part{len(self._assigned)}_"
            self.lines.append(f"{name} = {text}")
            self._assigned[expr] = name
        return self._assigned[expr]

    def _piecewise(self, expr: sp.Piecewise) -> str:
        """Return nested calls of torch.where."""
        *cases, (last, _) = expr.args
        text = self._tensor(last)
        for value, condition in reversed(cases):
            assert isinstance(condition, Relational)
            left = self._tensor if condition.rhs.is_number else self.write
            holds = f"{left(condition.lhs)} {condition.rel_op} {self.write(condition.rhs)}"
            text = f"torch.where({holds}, {self._tensor(value)}, {text})"
        return text

    def _tensor(self, expr: sp.Basic) -> str:
        """Return an expression's text, as a tensor even if it is a number."""
        text = self.write(expr)
        number = isinstance(expr, atoms.Special) or expr.is_number
        return f"{self.names['x']}.new_tensor({text})" if number else text
