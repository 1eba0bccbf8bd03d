"""Calls of ops in formulas: `gelu(x)`, `clamp(x, min=-1, max=high)`, `layer_norm(x, weight, eps=1e-6)`.

The first argument is the op's x, the next ones are its operands in order, and keywords are operands or
attributes.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy as sp

from fusegen.atoms import ColumnSum, Rng, RowTake, SampleSum, Total
from fusegen.atoms.constants import parts, value_of
from fusegen.ops import Op, RefusedError
from fusegen.spec.attribute import check_key, read_attribute, type_of
from fusegen.spec.formula.functions import Word, of_op
from fusegen.spec.formula.syntax import MADE_OF, FormulaError
from fusegen.spec.model import Ref
from fusegen.spec.scope import Reading, shown

__all__ = ["OpCall", "refusal"]

#: What makes a formula no function of an element or of its row.
_OTHERS = (ColumnSum, Rng, RowTake, SampleSum, Total)


def refusal(op: Op) -> str | None:
    """Return why no formula can call an op, or None if formulas can."""
    if op.source:
        return "torch computes"
    if op.eval_mode == "identity":
        return "draws random numbers in training only"
    if op.classes:
        return f"takes an int64 number for each row, its {op.classes!r}"
    if op.indexes:
        return "gives the number of a column, with which no step calculates"
    if op.conditions:
        return "chooses by a condition, which a formula writes as where(condition, value, other)"
    if op.trained or op.groups or op.over in ("inner", "channel"):
        return "has tensors in a submodule of Module" if op.submodule else "decides what a row is"
    return None


@dataclass(frozen=True)
class OpCall(Reading):
    """A call that is being read. Its `place` is the op's word.

    Args:
        node: the call.
        read: returns the expression of an argument.
        failed: returns the error at a part of the formula.
    """

    node: ast.Call
    read: Callable[[ast.expr], sp.Expr]
    failed: Callable[[ast.expr, str], FormulaError]

    def bound(self) -> tuple[Word, list[sp.Expr]]:
        """Return the op as a function of expressions, and the expressions that the call gives it.

        Raises:
            FormulaError: the op cannot be called, or something is missing, unknown or of the wrong type.
        """
        op = self.op
        if reason := refusal(op):
            message = f"a formula cannot call {self.word}, which {reason}"
            raise self.failed(self.node, f"{message}; write a step of its own: - {self.word}")
        x, given = self._given()
        operands = {name: self._operand(name, given) for name in op.operands if name in given}
        self._check_operands(given)
        attributes: dict[str, Any] = {}
        varying: list[str] = []
        for name in op.attributes:
            if name in given:
                if self._varies(name, given[name]):
                    varying.append(name)
                    continue
                attributes[name] = self._attribute(name, given[name])
                if isinstance(attributes[name], Ref):
                    varying.append(name)
            elif name in op.required and name not in op.dims:
                raise self.failed(self.node, f"{self.word} needs {name!r}; write {self._example()}")
        symbols = [self.read(given[name]) for name in varying]
        attributes |= dict.fromkeys(op.dims, -1)
        arguments = [self.read(x), *operands.values(), *symbols]

        def function(x: sp.Expr, *rest: sp.Expr) -> sp.Expr:
            named = dict(zip([*operands, *varying], rest, strict=True))
            bound = {name: named[name] for name in operands}
            return self._value(x, bound, {**attributes, **{name: named[name] for name in varying}})

        return Word(function, len(arguments), not (op.dims or op.over)), arguments

    def error(self, key: str, message: str) -> FormulaError:
        """Return an error at one of the call's keywords."""
        found = (k.value for k in self.node.keywords if k.arg == key)
        return self.failed(next(found, self.node), message)

    def _value(
        self, x: sp.Expr, operands: Mapping[str, sp.Expr], attributes: Mapping[str, Any]
    ) -> sp.Expr:
        try:
            value = of_op(self.op, x, operands, attributes)
        except RefusedError as error:
            raise self.failed(self.node, f"{self.word} {error}") from None
        if any(isinstance(part, _OTHERS) for part in parts(value)):
            reduces = "reduction" in self.op.attributes
            why = "here is one number for the whole tensor" if reduces else "is not of a row alone"
            none = "give reduction='none', or make it " if reduces else "it is "
            message = f"{self.word} {why}: {none}a step of its own: - {self.word}"
            raise self.failed(self.node, message)
        return value

    def _given(self) -> tuple[ast.expr, dict[str, ast.expr]]:
        """Return the call's x, and what else it gives, by name."""
        slots = list(self.op.operands)
        if not self.node.args:
            raise self.failed(self.node, f"{self.word} takes its x first; write {self._example()}")
        x, *rest = self.node.args
        if len(rest) > len(slots):
            takes = " and ".join(("x", *slots))
            surplus = zip(self._attributes, rest[len(slots) :], strict=False)
            named = ", ".join(f"{name}={shown(ast.unparse(node))}" for name, node in surplus)
            named = f"; attributes are given by name: {named}" if named else ""
            message = f"{self.word} takes {takes}, not {len(rest) + 1} values{named}"
            raise self.failed(rest[len(slots)], message)
        given = dict(zip(slots, rest, strict=False))
        for keyword in self.node.keywords:
            key = keyword.arg
            if key is None:
                raise self.failed(self.node, MADE_OF)
            self._check_dims(key)
            check_key(self, key, [*slots, *self._attributes])
            if key in given:
                raise self.failed(keyword.value, f"{self.word} is given {key!r} twice")
            given[key] = keyword.value
        return x, given

    @property
    def _attributes(self) -> list[str]:
        """The attributes that a call may give."""
        left_out = ("keepdim", *self.op.of_parts, *self.op.dims)
        return [name for name in self.op.attributes if name not in left_out]

    def _check_dims(self, key: str) -> None:
        """Refuse attributes that a formula has no use for."""
        if key in self.op.dims:
            message = (
                f"{self.word} takes no {key!r} in a formula, whose functions of a row have one in common: "
                f"- expr: {{formula: ..., {key}: ...}}"
            )
            raise self.error(key, message)
        if key == "keepdim" and key in self.op.attributes:
            message = f"{self.word} keeps its dim in a formula, with size 1: leave keepdim out"
            raise self.error(key, message)
        if key in self.op.of_parts:
            message = f"{self.word} takes {key} for the halves of one tensor: leave it out"
            raise self.error(key, message)

    def _operand(self, name: str, given: Mapping[str, ast.expr]) -> sp.Expr:
        value = self.read(given[name])
        constants = [*self.names.of_type("float")]
        constants += [n for n, operand in self.names.operands.items() if operand.constant]
        still = {sp.Symbol(constant, real=True) for constant in constants}
        if name in self.op.constant and value.free_symbols - still:
            message = (
                f"{name!r} of {self.word} gets no gradient, so in a formula it must be a number, or an "
                f"operand with `gradient: false`: else write a step of its own: - {self.word}"
            )
            raise self.failed(given[name], message)
        return value

    def _check_operands(self, given: Mapping[str, ast.expr]) -> None:
        """Refuse a call without an operand that the op needs."""
        missing = [n for n in self.op.operands if n not in given and n not in self.op.optional]
        if not missing:
            return
        step = ""
        if self.op.parts:
            step = f"; of two halves of one tensor it is a step of its own: - {self.word}"
        elif self.op.submodule:
            step = f"; with a parameter of Module it is a step of its own: - {self.word}"
        message = f"{self.word} needs its operand {missing[0]!r}; write {self._example()}{step}"
        raise self.failed(self.node, message)

    def _attribute(self, name: str, node: ast.expr) -> Any:
        """Return the value of an attribute, with the checks of a step's attributes."""
        return read_attribute(self, name, self._written(name, node))

    def _varies(self, name: str, node: ast.expr) -> bool:
        """Return whether a number is given as an expression of float arguments, such as `-limit`."""
        if isinstance(node, ast.Name | ast.Constant) or type_of(self.op, name) != "float":
            return False
        found = self.read(node).free_symbols
        floats = {sp.Symbol(argument, real=True) for argument in self.names.of_type("float")}
        return bool(found) and found <= floats

    def _written(self, name: str, node: ast.expr) -> Any:
        """Return an attribute as a spec would give it: a number, a word, or true or false."""
        floats = self.names.of_type("float")
        match node:
            case ast.Constant(value=str(word)) if word in floats:
                raise self.error(name, f"{name!r} of {self.word}: write {word} without quotes")
            case ast.Constant(value=str() | bool() | None as value):
                return value
            case ast.Name(id="true" | "false" as word):
                return word == "true"
            case ast.Name(id=word) if word in self.op.choices.get(name, ()):
                return word
            case ast.Name(id=word) if word in floats:
                self.read(node)  # counts as a mention of the argument
                return word
            case ast.Name(id=word) if isinstance(self.op.attributes[name], str):
                return word
        expr = self.read(node)
        value = value_of(expr)
        if value is None:
            return ast.unparse(node)
        return int(expr) if expr.is_Integer else float(value)

    def _example(self) -> str:
        """Return a call with everything that the op needs."""
        needed = [name for name in self.op.operands if name not in self.op.optional]
        named = [f"{n}=..." for n in self._attributes if n in self.op.required]
        return f"{self.word}({', '.join(['x', *needed, *named])})"
