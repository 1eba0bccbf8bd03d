"""The value of a spec's formula from its text, operation by operation, as Python and torch would compute it.

The kernels come from the expression that sympy makes of the text. What sympy changes on the way must not be
in the reference too.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from fusegen import atoms, ops
from fusegen.atoms import ATOMS
from fusegen.ops import Op
from fusegen.spec.attribute import type_of
from fusegen.spec.formula.functions import functions
from fusegen.spec.formula.syntax import read_tree
from fusegen.tools.check.reference_formula import evaluate, no_rng
from fusegen.tools.check.torch_call import Given, torch_call

__all__ = ["value_of_text"]

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Tensor]] = {
    ast.Lt: torch.lt,
    ast.LtE: torch.le,
    ast.Gt: torch.gt,
    ast.GtE: torch.ge,
}
#: Larger whole numbers become floats, as torch takes none that do not fit in 64 bits.
_LARGEST = 2**53


def value_of_text(
    text: str,
    values: Mapping[str, Tensor],
    numbers: Mapping[str, float],
    columns: tuple[int, ...] = (-1,),
) -> Tensor:
    """Return a formula's value.

    Args:
        text: the formula.
        values: the tensors that it names, which broadcast with one another, and x.
        numbers: the numbers that it names.
        columns: the dims that make up a row; none if a row is one element.
    """
    tree, _ = read_tree(text)
    reader = _Reader(values, numbers, columns)
    return reader.tensor(reader.value(tree))


def _rows_by_torch() -> dict[str, Op]:
    """Return the ops that the words for functions of a row stand for."""
    named = {"max": "amax", "min": "amin"}
    words = (word for word, known in functions().items() if known.arity == 1)
    found = {word: ops.find(named.get(word, word)) for word in words}
    return {word: op for word, op in found.items() if op is not None and op.dims}


@dataclass(frozen=True)
class _Reader:
    """Walks a formula's syntax tree; see `value_of_text`."""

    values: Mapping[str, Tensor]
    numbers: Mapping[str, float]
    columns: tuple[int, ...]

    @property
    def like(self) -> Tensor:
        """A tensor of the formula's dtype."""
        return self.values["x"]

    def tensor(self, value: Any) -> Tensor:
        """Return a value as a tensor."""
        return value if isinstance(value, Tensor) else self.like.new_tensor(float(value))

    def value(self, node: ast.expr) -> Any:
        """Return the value of a part of the formula: a tensor, or a number."""
        match node:
            case ast.Constant(value=int(number) | float(number)):
                return number if abs(number) < _LARGEST else float(number)
            case ast.Name(id=name):
                return self._named(name)
            case ast.UnaryOp(op=ast.USub()):
                return -self.value(node.operand)
            case ast.UnaryOp():
                return self.value(node.operand)
            case ast.BinOp():
                return _BINARY[type(node.op)](self.value(node.left), self.value(node.right))
            case ast.Call(func=ast.Name(id=name)):
                return self._called(name, node)
        raise TypeError(f"{ast.unparse(node)} is no part of a formula")

    def _named(self, name: str) -> Any:
        if name in self.values:
            return self.values[name]
        return self.numbers.get(name, math.pi)

    def _called(self, name: str, node: ast.Call) -> Any:
        word, op = functions().get(name), ops.find(name)
        if op is not None and (word is None or (node.keywords and name != "where")):
            return self._op(op, node)
        if name == "where":
            return self._where(*node.args)
        arguments = [self.tensor(self.value(argument)) for argument in node.args]
        if name in (rows := _rows_by_torch()):
            return self._by_op(rows[name], arguments[0], {}, dict(rows[name].attributes))
        if name in ("sqrt", "rsqrt"):
            return getattr(torch, name)(*arguments)
        return next(a for a in ATOMS.values() if a.word == name).truth(torch, *arguments)

    def _where(self, condition: ast.expr, value: ast.expr, other: ast.expr) -> Tensor:
        if isinstance(condition, ast.Name):
            holds = self.values[condition.id] != 0
        else:
            assert isinstance(condition, ast.Compare)
            sides = condition.left, condition.comparators[0]
            left, right = (self.tensor(self.value(side)) for side in sides)
            holds = _COMPARE[type(condition.ops[0])](left, right)
        return torch.where(holds, self.tensor(self.value(value)), self.tensor(self.value(other)))

    def _op(self, op: Op, node: ast.Call) -> Tensor:
        """Return the value of a call of an op, with its operands and attributes."""
        first, *rest = node.args
        given = dict(zip(op.operands, rest, strict=False))
        given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        operands = {name: self.value(given[name]) for name in op.operands if name in given}
        attributes = {name: self._attribute(op, name, given) for name in op.attributes}
        return self._by_op(op, self.tensor(self.value(first)), operands, attributes)

    def _attribute(self, op: Op, name: str, given: Mapping[str, ast.expr]) -> Any:
        """Return the value of an attribute: its default, a word, or a number."""
        if name not in given:
            return op.attributes[name]
        kind, node = type_of(op, name), given[name]
        match node:
            case ast.Constant(value=str() | bool() | None as value):
                pass
            case ast.Name(id="true" | "false" as word):
                value = word == "true"
            case ast.Name(id=word) if kind == "str" or word in op.choices.get(name, ()):
                value = word
            case _:
                value = self.value(node)
        return {"float": float, "int": int}[kind](value) if kind in ("float", "int") else value

    def _by_op(
        self, op: Op, x: Tensor, operands: Mapping[str, Any], attributes: dict[str, Any]
    ) -> Tensor:
        """Return the value of an op: by torch's function where its row is torch's, else by its formula."""
        if op.dims or op.over:
            x = x.reshape(*[1] * (self.like.dim() - x.dim()), *x.shape)
        columns = self.columns
        attributes |= dict.fromkeys(op.dims, columns if len(columns) != 1 else columns[0])
        if "keepdim" in attributes:
            attributes["keepdim"] = True
        of_rows = bool(op.dims or op.over or op.takes_shape)
        usual = columns == (-1,) if not op.dims or op.takes_shape else bool(columns)
        held = any(op.operands[name] is not None for name in operands) and not op.takes_shape
        plain = (usual or not of_rows) and not held and not (op.coarse and x.is_cuda)
        tensors = {name: v for name, v in operands.items() if isinstance(v, Tensor)}
        if op.takes_shape:  # torch's norms want a weight for each column
            plain = plain and all(v.shape == x.shape[-1:] for v in tensors.values())
        call = torch_call(op, attributes, training=False) if plain else None
        if call is None:
            return self._by_formula(op, x, operands, attributes)
        if tensors and not op.takes_shape:  # torch's losses warn of shapes that differ
            x, *spread = torch.broadcast_tensors(x, *tensors.values())  # type: ignore[no-untyped-call] # torch says no types
            operands = {**operands, **dict(zip(tensors, spread, strict=True))}
        given: list[Given] = [operands.get(name) for name in op.operands]
        return call(x, given)

    def _by_formula(
        self, op: Op, x: Tensor, operands: Mapping[str, Any], attributes: dict[str, Any]
    ) -> Tensor:
        given = {name: self.tensor(value) for name, value in operands.items()}
        symbols = {name: sp.Symbol(name, real=True) for name in ("x", *given)}
        attributes |= dict.fromkeys(op.dims, -1)
        expr = ops.call(op, symbols.pop("x"), symbols, attributes)
        length = math.prod(x.shape[dim] for dim in self.columns) if x.dim() else 1
        expr = expr.xreplace({atoms.COLS: sp.Integer(length)})
        result: Tensor = evaluate(expr, {"x": x, **given}, no_rng, self.columns)
        return result
