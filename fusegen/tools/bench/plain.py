"""A chain as one would write it by hand in torch: a list of calls that torch.compile can trace whole."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import sympy as sp
import torch
from sympy.core.relational import Relational
from torch import Tensor, nn

from fusegen import atoms, ops
from fusegen.atoms import ATOMS, TORCH_HALVES, TORCH_REDUCTIONS
from fusegen.chain import Chain
from fusegen.chain.outline import names_reduced
from fusegen.program import ending
from fusegen.spec.model import INPUT, Ref, Step
from fusegen.tools.check.reference import column_numbers, one_a_row, parts_taken, row_length
from fusegen.tools.check.reference_formula import all_tensors
from fusegen.tools.check.torch_call import Given, torch_call

#: A step: the activation, and the operands by name.
Call = Callable[[Tensor, Mapping[str, Tensor]], Tensor]
#: A part of a formula: the tensors by name, x among them.
Part = Callable[[Mapping[str, Any]], Any]

#: The key of the number of elements in a row of what a formula reduces.
_LENGTH = ""

_COMPARE: dict[str, Callable[..., Any]] = {
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def tail(chain: Chain, numbers: Mapping[str, float]) -> Callable[..., Any]:
    """Return the chain without its matmul, in training, as a function of x and the operands.

    Args:
        chain: the chain.
        numbers: the float arguments, by name.
    """
    segments = [
        (
            segment.span.layout.columns,
            [(step, _step(step, numbers, segment.span.layout.columns)) for step in segment.steps],
        )
        for segment in chain.segments
    ]
    names = [o.name for o in chain.operands]

    outputs = chain.spec.outputs

    def run(x: Tensor, *operands: Tensor) -> Any:
        whole = {INPUT: x} | dict(zip(names, operands, strict=True))
        for columns, calls in segments:
            bound, dims = whole, x.dim()
            for step, call in calls:
                # If the columns are dropped, they are dropped from tensors with one value per row too.
                if x.dim() < dims:
                    rows = {n: t.squeeze(columns) for n, t in bound.items() if t.dim() == dims}
                    bound, dims = bound | rows, x.dim()
                made = (
                    dict(zip(step.parts, parts_taken(step, x), strict=True)) if step.parts else {}
                )
                x = call(x, bound)
                made[step.label] = x
                bound, whole = bound | made, whole | made
        return tuple(whole[label] for label in outputs) if outputs else x

    return run


class Model(nn.Module):
    """The model that a generated Module replaces, with the very same parameters.

    Args:
        chain: the chain.
        fused: the generated Module, whose submodules and parameters this one has too.
    """

    def __init__(self, chain: Chain, fused: nn.Module) -> None:
        super().__init__()
        for name, held in fused.named_children():
            self.add_module(name, held)
        for name, parameter in fused.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        numbers = {n: getattr(fused, n) for n in chain.attributes if hasattr(fused, n)}
        held_by_torch = [bool(s.op and s.op.submodule) for s in chain.spec.steps]
        steps = [
            (step, segment.span.layout.columns)
            for segment in chain.segments
            for step in segment.steps
        ]
        self._steps = [
            (step, None if held else _step(step, numbers, columns))
            for (step, columns), held in zip(steps, held_by_torch, strict=True)
        ]
        own = {o.name for o in chain.operands if o.owner == o.name}
        self._own = {o.name: o.place for o in chain.spec.operands if o.name in own}
        self._inputs = [o.name for o in chain.operands if o.owner is None and o.name != INPUT]

    def forward(self, x: Tensor, *inputs: Tensor) -> Tensor:
        """Return the model's output at `x`."""
        operands = {INPUT: x} | dict(zip(self._inputs, inputs, strict=True))
        for name, place in self._own.items():
            operands[name] = self.get_parameter(place)
        for step, call in self._steps:
            if step.parts:
                operands |= zip(step.parts, parts_taken(step, x), strict=True)
            x = self.get_submodule(step.place)(x) if call is None else call(x, operands)
            operands[step.label] = x
        return x


def _step(step: Step, numbers: Mapping[str, float], columns: tuple[int, ...]) -> Call:
    """Return the call of one step, with its attributes bound; a row runs along the columns' dims."""
    if step.formula is not None:
        part = _part(step.formula, numbers, columns)
        reduced = [name for name in names_reduced(step.formula) if name not in numbers]

        def of_formula(x: Tensor, operands: Mapping[str, Tensor]) -> Tensor:
            values: dict[str, Any] = {"x": x, **operands}
            values[_LENGTH] = row_length([values[name] for name in reduced], columns)
            result: Tensor = part(values)
            return result

        return of_formula
    assert step.op is not None
    if step.op.source:
        if not step.state:
            return lambda x, _: x
        bias = f"{step.label}_bias"
        trailing = [1] * max(step.op.rank - 2, 0)
        return lambda x, operands: x + operands[bias].reshape(-1, *trailing)
    attributes: dict[str, Any] = {
        name: numbers[value.name] if isinstance(value, Ref) else value
        for name, value in step.attributes.items()
    }
    taken = {
        name: ending(1 + step.split.index(name))
        if name in step.split
        else _operand(step, name, numbers)
        for name in step.op.operands
    }
    function = torch_call(step.op, attributes, training=True)
    if function is not None:
        return lambda x, operands: function(x, [_value(t, operands) for t in taken.values()])
    taken = {name: t for name, t in taken.items() if t is not None}  # the op has defaults
    symbols = {name: sp.Symbol(name, real=True) for name in taken}
    formula = _part(ops.call(step.op, sp.Symbol("x", real=True), symbols, attributes), {}, columns)
    classes = step.op.classes

    def run(x: Tensor, operands: Mapping[str, Tensor]) -> Tensor:
        given = {n: _value(t, operands) for n, t in taken.items()}
        if isinstance(of_rows := given.get(classes), Tensor):
            given[classes] = one_a_row(of_rows, x, columns)
        result: Tensor = formula({"x": x, **given})
        return result

    def of_its_parts(x: Tensor, operands: Mapping[str, Tensor]) -> Tensor:
        first, *others = parts_taken(step, x)
        return run(first, {**operands, **{ending(n): other for n, other in enumerate(others, 1)}})

    return of_its_parts if step.split else run


def _operand(step: Step, name: str, numbers: Mapping[str, float]) -> str | float | None:
    """Return the value of an operand: the name of a tensor, a number, or None."""
    value = step.operand(name)
    if isinstance(value, Ref):
        return numbers[value.name] if value.is_argument else value.name
    return value


def _value(taken: str | float | None, operands: Mapping[str, Tensor]) -> Given:
    return operands[taken] if isinstance(taken, str) else taken


def _part(expr: sp.Basic, numbers: Mapping[str, float], columns: tuple[int, ...] = (-1,)) -> Part:
    """Return a part of a formula as a function; constant parts are evaluated here."""
    names = {str(symbol) for symbol in expr.free_symbols}
    if expr.func.__name__ == "Special":
        return lambda _: expr.value
    of_shape = expr.has(atoms.COLS, atoms.COLUMN)  # whatever the numbers' names
    if not names or (names <= set(numbers) and not of_shape):
        value = _number(expr, {name: numbers[name] for name in names})
        return lambda _: value
    if expr.is_Symbol:
        name = str(expr)
        if expr == atoms.COLS:
            return lambda values: (
                values[_LENGTH] if _LENGTH in values else row_length([values["x"]], columns)
            )
        if expr == atoms.COLUMN:
            return lambda values: column_numbers(values["x"], columns)
        return lambda values: values[name]
    if isinstance(expr, sp.Piecewise):
        return _where(expr, numbers, columns)
    if expr.func.__name__ == "Let":
        return _part(expr.value, numbers, columns)
    parts = [_part(arg, numbers, columns) for arg in expr.args]
    if expr.is_Add:
        return lambda values: functools.reduce(lambda a, b: a + b, [p(values) for p in parts])
    if expr.is_Mul:
        return lambda values: functools.reduce(lambda a, b: a * b, [p(values) for p in parts])
    if expr.is_Pow:
        base, exponent = parts
        return lambda values: base(values) ** exponent(values)
    if expr.func in TORCH_REDUCTIONS:
        reduce = TORCH_REDUCTIONS[expr.func]
        return lambda values: reduce(torch, parts[0](values), columns)
    if expr.func in TORCH_HALVES:  # whose second argument says which half
        half = TORCH_HALVES[expr.func]
        return lambda values: half(torch, *[p(values) for p in parts])
    function = ATOMS[expr.func].torch
    return lambda values: function(torch, *all_tensors([p(values) for p in parts]))


def _number(expr: sp.Basic, numbers: Mapping[str, float]) -> float:
    """Return the value of a part without tensors."""
    if not numbers:
        return int(expr) if expr.is_Integer else float(expr)
    exact = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
    return float(_part(expr, {})(exact))


def _where(expr: sp.Piecewise, numbers: Mapping[str, float], columns: tuple[int, ...]) -> Part:
    *cases, (last, _) = expr.args
    result = _part(last, numbers, columns)
    for value, condition in reversed(cases):
        assert isinstance(condition, Relational)
        left, right, chosen = (
            _part(part, numbers, columns) for part in (condition.lhs, condition.rhs, value)
        )
        result = _chosen(_COMPARE[condition.rel_op], left, right, chosen, result)
    return result


def _chosen(compare: Callable[..., Any], left: Part, right: Part, value: Part, other: Part) -> Part:
    return lambda values: torch.where(
        compare(left(values), right(values)), value(values), other(values)
    )
