"""A formula's value by torch's own functions, in whatever dtype the tensors have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy as sp
import torch
from sympy.core.relational import Relational
from torch import Tensor

from fusegen import atoms
from fusegen.atoms import ATOMS, TORCH_HALVES, TORCH_REDUCTIONS
from fusegen.atoms.values import constant

#: Changes the value of each operation, given its expression and its arguments' values.
Rounding = Callable[[sp.Basic, Any, Sequence[Any]], Any]

_COMPARE = {
    **{">": torch.gt, ">=": torch.ge, "<": torch.lt, "<=": torch.le},
    **{"==": torch.eq, "!=": torch.ne},
}


def evaluate(
    expr: sp.Basic,
    values: Mapping[str, Tensor],
    rng: Callable[[int], Tensor],
    dims: tuple[int, ...] = (-1,),
    rounding: Rounding | None = None,
) -> Any:
    """Return an expression's value.

    Args:
        expr: over symbols whose names are in `values`.
        values: tensors that broadcast with one another.
        rng: returns the uniform numbers of a stream.
        dims: the dims that make up a row.
        rounding: applied to each operation's value; by default the identity.
    """
    if expr.is_Symbol:
        return values[str(expr)]
    if isinstance(expr, atoms.Rng):
        return rng(int(expr.args[0]))
    if isinstance(expr, atoms.Special):
        return expr.value
    if not expr.has(atoms.Rng) and expr.is_number:
        value = constant(expr)
        value = float(expr) if value is None else value
        return rounding(expr, value, ()) if rounding else value
    if isinstance(expr, atoms.Let):
        return evaluate(expr.value, values, rng, dims, rounding)
    if isinstance(expr, sp.Piecewise):
        *cases, (last, _) = expr.args
        result = evaluate(last, values, rng, dims, rounding)
        for value, condition in reversed(cases):
            holds = _holds(condition, values, rng, dims, rounding)
            chosen, other = evaluate(value, values, rng, dims, rounding), result
            result = torch.where(
                holds, *(torch.as_tensor(v, dtype=_dtype(values)) for v in (chosen, other))
            )
        return result
    if isinstance(expr, atoms.PartOf):
        whole = evaluate(expr.args[0], values, rng, dims, rounding)
        return TORCH_HALVES[expr.func](torch, whole, int(expr.args[1]))
    args = [evaluate(arg, values, rng, dims, rounding) for arg in expr.args]
    if expr.func in TORCH_HALVES:
        return TORCH_HALVES[expr.func](torch, *args)
    result = _result(expr, args, dims)
    return rounding(expr, result, args) if rounding else result


def _result(expr: sp.Basic, args: Sequence[Any], dims: tuple[int, ...]) -> Any:
    """Return the value of one operation."""
    if expr.is_Add:
        return functools.reduce(lambda a, b: a + b, args)
    if expr.is_Mul:
        return functools.reduce(lambda a, b: a * b, args)
    if expr.is_Pow:
        return args[0] ** args[1]
    if expr.func in TORCH_REDUCTIONS:
        one_column = not dims and not isinstance(expr, atoms.Total)
        return args[0] if one_column else TORCH_REDUCTIONS[expr.func](torch, args[0], dims)
    return ATOMS[expr.func].truth(torch, *all_tensors(args))


def all_tensors(args: Sequence[Any]) -> Sequence[Any]:
    """Return arguments with numbers beside a tensor as tensors: some functions of torch take those alone."""
    like = next((arg for arg in args if isinstance(arg, Tensor)), None)
    if like is None:
        return args
    return [arg if isinstance(arg, Tensor) else like.new_tensor(arg) for arg in args]


def _holds(
    condition: sp.Basic,
    values: Mapping[str, Tensor],
    rng: Callable[[int], Tensor],
    dims: tuple[int, ...],
    rounding: Rounding | None,
) -> Tensor:
    if isinstance(condition, sp.And | sp.Or):
        joined = torch.logical_and if isinstance(condition, sp.And) else torch.logical_or
        parts = (_holds(c, values, rng, dims, rounding) for c in condition.args)
        return functools.reduce(joined, parts)
    assert isinstance(condition, Relational)
    left, right = (evaluate(s, values, rng, dims, rounding) for s in (condition.lhs, condition.rhs))
    return _COMPARE[condition.rel_op](torch.as_tensor(left), right)


def _dtype(values: Mapping[str, Tensor]) -> torch.dtype:
    return next(iter(values.values())).dtype


def no_rng(stream: int) -> Tensor:
    """Refuse to draw: a program's random numbers are inputs, and only steps that draw get any."""
    raise ValueError(f"stream {stream}: a program's draws are inputs")
