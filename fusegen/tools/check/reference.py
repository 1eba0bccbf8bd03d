"""A chain by torch's own functions, to compare with.

Generated code uses nothing of this. Ops run as their torch function, or by their formula where torch has
none, and formulas of the spec from their text (`reference_text.py`), in the dtype of the tensors. float64
gives the reference.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from fusegen import atoms, ops
from fusegen.chain.cut_into_segments import spans_of
from fusegen.program import ending
from fusegen.spec.model import EXPR, INPUT, Ref, Spec, Step
from fusegen.tools.check.philox import uniform
from fusegen.tools.check.reference_formula import evaluate, no_rng
from fusegen.tools.check.reference_text import value_of_text
from fusegen.tools.check.torch_call import Given, torch_call


def run_chain(
    spec: Spec,
    x: Tensor,
    operands: Mapping[str, Tensor],
    attributes: Mapping[str, float],
    *,
    training: bool = False,
    seed: int = 0,
    handed: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor | tuple[Tensor, ...]:
    """Return the chain after the matmul, by torch's own functions: its value, or its outputs.

    Args:
        spec: the spec.
        x: the activation [..., cols].
        operands: the tensors of `apply`, by name.
        attributes: the numbers of `apply`, by name.
        training: the mode.
        seed: the seed of the random numbers.
        handed: a function of each tensor that one segment passes to the next.
    """
    stream = 0
    named = {} if spec.steps[0].op and spec.steps[0].op.source else {INPUT: x}
    for number, span in enumerate(spans_of(spec)):
        if number:
            x, named = handed(x), {name: handed(value) for name, value in named.items()}
        given = {**operands, **named}
        dims, columns = x.dim(), span.layout.columns
        for step in span.steps:
            before = x
            if x.dim() < dims:  # the columns are dropped, also from tensors with one value per row
                given = {n: t.squeeze(columns) if t.dim() == dims else t for n, t in given.items()}
                dims, columns = x.dim(), ()
            if step.op is not None and step.op.eval_mode == "identity":
                if training:
                    drawn = functools.partial(_drawn, uniform(seed, stream, x.shape).to(x))
                    x = _run_formula(step, x, given, attributes, drawn, columns)
                    stream += 1
            else:
                value = _run_step(step, x, given, attributes, columns, training=training)
                if step.indexes and step is not spec.steps[-1]:
                    named[step.label] = value  # the next step goes on from other values
                    continue
                x = value
            own = {step.label: x, **(_named_parts(step, before) if step.parts else {})}
            given, named = {**given, **own}, {**named, **own}
    if not spec.outputs:
        return x
    values = {
        name: value.detach() if name in spec.detached else value for name, value in named.items()
    }
    return tuple(values[label] for label in spec.outputs)


def _drawn(numbers: Tensor, stream: int) -> Tensor:
    del stream
    return numbers


def _run_step(
    step: Step,
    x: Tensor,
    operands: Mapping[str, Tensor],
    attributes: Mapping[str, float],
    columns: tuple[int, ...],
    *,
    training: bool,
) -> Tensor:
    """Return the value of a step without random numbers."""
    if step.op is None or step.op.name == EXPR:
        named = {**operands, **_named_parts(step, x)} if step.parts else operands
        return value_of_text(step.text, {"x": x, **named}, attributes, columns)
    if step.op.source:
        bias = operands.get(f"{step.label}_bias")
        return x if bias is None else x + bias.reshape(-1, *[1] * max(step.op.rank - 2, 0))
    if step.split:
        taken = parts_taken(step, x)
        given = {**operands, **{ending(n): part for n, part in enumerate(taken) if n}}
        return _run_formula(step, taken[0], given, attributes, no_rng, columns)
    call = torch_call(step.op, _attributes(step, attributes), training=training)
    if call is None or (step.op.coarse and x.is_cuda and x.dtype == torch.float64):
        return _run_formula(step, x, operands, attributes, no_rng, columns)
    return call(x, [_operand(step, n, operands, attributes) for n in step.op.operands])


def parts_taken(step: Step, x: Tensor) -> tuple[Tensor, ...]:
    """Return the parts of what reaches a step that takes them."""
    if step.attributes["alternating"]:
        return x[..., ::2], x[..., 1::2]
    return x.chunk(1 + len(step.split), step.halved)


def _named_parts(step: Step, x: Tensor) -> dict[str, Tensor]:
    """Return the parts of what reaches a step by the names that its formula gives them."""
    return dict(zip(step.parts, parts_taken(step, x), strict=True))


def row_length(reduced: Sequence[Tensor], columns: tuple[int, ...]) -> int:
    """Return the number of elements in a row of what a formula reduces, from the tensors in it."""
    # Lists: torch.compile cannot trace a generator that it hands to a function of C.
    shape: Sequence[int] = torch.broadcast_shapes(*[t.shape for t in reduced])  # type: ignore[no-untyped-call]
    return math.prod([shape[dim] for dim in columns if -dim <= len(shape)])


def _sized(formula: sp.Expr, x: Tensor, columns: tuple[int, ...]) -> sp.Expr:
    cols = math.prod(x.shape[dim] for dim in columns) if x.dim() else 1
    rows = x.numel() // max(cols, 1)
    return formula.xreplace({atoms.COLS: sp.Integer(cols), atoms.ROWS: sp.Integer(rows)})


def _run_formula(
    step: Step,
    x: Tensor,
    operands: Mapping[str, Tensor],
    attributes: Mapping[str, float],
    rng: Callable[[int], Tensor],
    columns: tuple[int, ...],
) -> Tensor:
    """Return an op's value by its own formula."""
    assert step.op is not None
    values = {name: _operand(step, name, operands, attributes) for name in step.op.operands}
    given = {name: torch.as_tensor(v).to(x) for name, v in values.items() if v is not None}
    names = {name: sp.Symbol(name, real=True) for name in given}
    expr = ops.call(step.op, sp.Symbol("x", real=True), names, _attributes(step, attributes))
    if step.op.classes:
        if columns:
            given[step.op.classes] = one_a_row(given[step.op.classes], x, columns)
        given[str(atoms.COLUMN)] = column_numbers(x, columns) if columns else x.new_zeros(())
    result: Tensor = evaluate(_sized(expr, x, columns), {"x": x, **given}, rng, columns)
    return result


def one_a_row(held: Tensor, x: Tensor, columns: tuple[int, ...]) -> Tensor:
    """Return a tensor with one number per row, in x's shape without its columns, so that it broadcasts with
    x."""
    sizes = dict(enumerate(x.shape, -x.dim()))
    return held.reshape([1 if dim in columns else size for dim, size in sizes.items()])


def column_numbers(x: Tensor, columns: tuple[int, ...]) -> Tensor:
    """Return the column numbers in a shape that broadcasts with x."""
    sizes = [x.shape[dim] for dim in columns]
    numbers = torch.arange(math.prod(sizes), device=x.device).to(x.dtype)
    return numbers.reshape(*sizes, *[1] * (-1 - columns[-1]))


def _operand(
    step: Step, name: str, operands: Mapping[str, Tensor], attributes: Mapping[str, float]
) -> Given:
    value = step.operand(name)
    if name in step.split:
        value = Ref(ending(1 + step.split.index(name)), is_argument=False)
    if isinstance(value, Ref):
        return attributes[value.name] if value.is_argument else operands[value.name]
    return value


def _attributes(step: Step, attributes: Mapping[str, float]) -> dict[str, Any]:
    return {
        name: attributes[value.name] if isinstance(value, Ref) else value
        for name, value in step.attributes.items()
    }
