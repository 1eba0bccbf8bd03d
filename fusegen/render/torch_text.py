"""Writes a formula as Python text that calls torch's own functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy as sp
from sympy.core.relational import Relational

from fusegen import atoms

#: The text of functions with one or two arguments.
_FUNCTIONS: dict[Any, str] = {
    atoms.absolute: "torch.abs({0})",
    atoms.expm1: "torch.expm1({0})",
    atoms.log1p: "torch.log1p({0})",
    atoms.normcdf: "torch.special.ndtr({0})",
    atoms.normpdf: "(torch.exp(-0.5 * {0} * {0}) * 0.3989422804014327)",
    atoms.power: "torch.pow({0}, {1})",
    atoms.sech2: "(1 / torch.cosh({0}).square())",
    atoms.sigmoid: "torch.sigmoid({0})",
    atoms.sign: "torch.sign({0})",
    atoms.softplus: "torch.logaddexp({0}, torch.zeros_like({0}))",
    atoms.tanh: "torch.tanh({0})",
    sp.cos: "torch.cos({0})",
    sp.erf: "torch.erf({0})",
    sp.exp: "torch.exp({0})",
    sp.log: "torch.log({0})",
    sp.sin: "torch.sin({0})",
}
#: The text of reductions over a row, and over all elements.
_REDUCTIONS: dict[Any, str] = {
    atoms.RowSum: "{0}.sum({1}, keepdim=True)",
    atoms.RowMax: "{0}.amax({1}, keepdim=True)",
    atoms.RowShift: "{0}.amax({1}, keepdim=True).detach()",
    atoms.Total: "torch.sum({0})",
}
_POWERS = {
    sp.Rational(1, 2): "torch.sqrt({0})",
    sp.Rational(-1, 2): "torch.rsqrt({0})",
    sp.Integer(-1): "(1 / {0})",
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
        if expr.is_number:
            return f"({float(expr)!r})"
        if isinstance(expr, sp.Piecewise):
            return self._piecewise(expr)
        if expr.is_Pow and expr.exp in _POWERS:
            return _POWERS[expr.exp].format(self.write(expr.base))
        args = [self.write(arg) for arg in expr.args]
        if expr.is_Add or expr.is_Mul or expr.is_Pow:
            sign = " + " if expr.is_Add else " * " if expr.is_Mul else " ** "
            return f"({sign.join(args)})"
        if expr.func in _REDUCTIONS:
            return _REDUCTIONS[expr.func].format(args[0], self.columns)
        return _FUNCTIONS[expr.func].format(*args)

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
            holds = f"{self.write(condition.lhs)} {condition.rel_op} {self.write(condition.rhs)}"
            text = f"torch.where({holds}, {self._tensor(value)}, {text})"
        return text

    def _tensor(self, expr: sp.Basic) -> str:
        """Return an expression's text, as a tensor even if it is a number."""
        text = self.write(expr)
        number = isinstance(expr, atoms.Special) or expr.is_number
        return f"{self.names['x']}.new_tensor({text})" if number else text
