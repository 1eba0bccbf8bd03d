"""A program's outputs by torch's own functions, node by node: the reference for derivatives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fusegen.program import Input, Kind, Map, Output, Program, Reduce, Take, Value
from fusegen.tools.check.philox import uniform
from fusegen.tools.check.reference_formula import evaluate, no_rng
from fusegen.tools.check.rounding import EXACT, Rounding

__all__ = ["Axes", "run_program"]


@dataclass(frozen=True)
class Axes:
    """The dims of an activation, and which of them are its columns.

    Args:
        shape: its shape.
        columns: the dims of the columns, counted from the end.
    """

    shape: tuple[int, ...]
    columns: tuple[int, ...] = (-1,)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return torch.Size(self.of(Kind.ROW)).numel()

    @property
    def cols(self) -> int:
        """The number of columns."""
        return torch.Size(self.of(Kind.COL)).numel()

    def dims(self, kind: Kind) -> tuple[int, ...]:
        """Return the dims that a kind varies along, counted from the end."""
        axis = {True: Kind.COL, False: Kind.ROW}
        return tuple(d for d in range(-len(self.shape), 0) if axis[d in self.columns] in kind)

    def of(self, kind: Kind) -> tuple[int, ...]:
        """Return the shape of a value of a kind, with size 1 along axes that it does not vary along."""
        varies = self.dims(kind)
        return tuple(
            size if dim in varies else 1
            for dim, size in zip(range(-len(self.shape), 0), self.shape, strict=True)
        )

    def flat(self, full: Tensor) -> Tensor:
        """Return a full value as [rows, cols]."""
        places = [dim + full.dim() for dim in self.columns]
        last = range(full.dim() - len(places), full.dim())
        return full.movedim(places, list(last)).reshape(self.rows, self.cols)


def run_program(
    program: Program,
    inputs: Mapping[str, Tensor],
    seed: int = 0,
    axes: Axes | None = None,
    rounding: Rounding = EXACT,
) -> dict[str, Tensor]:
    """Return a program's outputs and shared gradients; values per row keep the columns' dims, with size 1.

    Args:
        program: any program.
        inputs: its inputs by name, in shapes that broadcast: for an activation of two dims full [rows, cols],
            col [cols], row [rows, 1], scalar [1].
        seed: the seed of its random numbers.
        axes: the activation's dims, by default those of x, with the last as the columns.
        rounding: applied to each operation's value.
    """
    axes = axes or Axes(tuple(inputs["x"].shape))
    like = next(t for t in inputs.values() if t.is_floating_point())
    values: dict[str, Tensor] = dict(inputs)
    for node in program.nodes():
        if node.name not in values:
            value = _value(node, values, like, axes, seed, rounding)
            values[node.name] = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    given = {i.name: i for i in program.inputs}
    outputs = dict(program.outputs)
    for name, shared in program.shared.items():
        source = program.outputs.get(shared.source)
        outputs[name] = Output(source.value if source else given[shared.source], shared.like)
    return {
        name: _shaped(values[out.value.name], out, inputs, axes, rounding)
        for name, out in outputs.items()
    }


def _value(
    node: Value,
    values: Mapping[str, Tensor],
    like: Tensor,
    axes: Axes,
    seed: int,
    rounding: Rounding,
) -> Tensor | float:
    """Return the value of a node whose arguments are known."""
    if isinstance(node, Input):
        return _made(node, like, axes, seed)
    if isinstance(node, Map):
        found: Tensor = evaluate(node.expr, values, no_rng, rounding=rounding.operation)
        return found
    if isinstance(node, Take):
        whole = values[node.arg.name].expand(axes.of(Kind.FULL))
        return _taken(whole, values[node.index.name], axes)
    assert isinstance(node, Reduce)
    whole = values[node.arg.name].expand(axes.of(node.arg.kind))
    dims = axes.dims(node.axes)
    if node.sample:
        first = axes.flat(whole)[: _sample(axes)]
        return rounding.sum(first, (0,)).reshape(axes.of(node.kind))
    return rounding.sum(whole, dims) if node.op == "sum" else torch.amax(whole, dims, keepdim=True)


def _made(node: Input, like: Tensor, axes: Axes, seed: int) -> Tensor | float:
    """Return an input that is not a tensor of the call."""
    if node.source == "index":
        numbers = torch.arange(axes.cols)
        return numbers.reshape(axes.of(Kind.COL)).to(like)
    if node.source == "extent":
        extents = {"rows": axes.rows, "cols": axes.cols, "sample": _sample(axes)}
        return float(extents[node.name])
    return uniform(seed, node.stream, axes.shape).to(like)


def _sample(axes: Axes) -> int:
    """Return how many rows `Reduce.sample` takes."""
    return -(-axes.rows // 16)


def _taken(whole: Tensor, index: Tensor, axes: Axes) -> Tensor:
    """Return each row's element at its index, or the first element if the index is not a column."""
    columns = [dim + whole.dim() for dim in axes.columns]
    last = list(range(whole.dim() - len(columns), whole.dim()))
    moved = whole.movedim(columns, last)
    flat = moved.reshape(*moved.shape[: last[0]], -1)
    column = index.long().movedim(columns, last).reshape(*moved.shape[: last[0]], 1)
    known = (column >= 0) & (column < flat.shape[-1])
    found = flat.gather(-1, torch.where(known, column, 0))
    return found.reshape(*moved.shape[: last[0]], *[1] * len(columns)).movedim(last, columns)


def _shaped(
    value: Tensor, out: Output, inputs: Mapping[str, Tensor], axes: Axes, rounding: Rounding
) -> Tensor:
    """Return an output in its shape: that of the input that it is like, or that of its kind."""
    if out.outline == "scalar":
        return value.reshape(())
    if out.outline not in ("like", "half"):
        return value.expand(axes.of(out.kind))
    own = inputs[out.like.name].shape
    spread = value.expand(axes.of(out.kind))
    if out.outline == "like" and math.prod(own) != spread.numel():  # it was broadcast
        padded = [1] * (spread.dim() - len(own)) + list(own)
        dims = [d for d, size in enumerate(padded) if size == 1 and spread.shape[d] != 1]
        if out.like.access.kind == out.kind and out.like.access.stored == "x":
            spread = rounding.stored(spread)  # the kernel writes it, and torch sums it
        return rounding.sum(spread, dims).reshape(own)
    return spread.reshape(own)
