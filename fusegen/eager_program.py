"""A program's outputs by torch's own functions, node by node: what derivatives are compared with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusegen.draws import uniform
from fusegen.eager_formula import evaluate, no_draws
from fusegen.program import Input, Kind, Map, Program, Reduce, Take


def run_program(program: Program, inputs: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Return a program's outputs, by name, for an activation of two dims.

    Args:
        program: any program.
        inputs: its inputs by name: full [rows, cols], col [cols], row [rows, 1], scalar [1].
        seed: the seed of its draws.
    """
    values: dict[str, Tensor] = dict(inputs)
    x = inputs["x"]
    rows, cols = x.shape
    sample = -(-rows // 16)  # the rows that `Reduce.sample` takes
    for node in program.nodes():
        if isinstance(node, Input) and node.name not in values:
            if node.source == "index":
                values[node.name] = torch.arange(cols).to(x)
            elif node.source == "extent":
                extents = {"rows": rows, "cols": cols, "sample": sample}
                values[node.name] = torch.tensor(float(extents[node.name]), dtype=x.dtype)
            else:
                values[node.name] = uniform(seed, node.stream, x.shape).to(x)
        elif isinstance(node, Map):
            value = evaluate(node.expr, values, no_draws)
            values[node.name] = torch.as_tensor(value, dtype=x.dtype, device=x.device)
        elif isinstance(node, Take):
            values[node.name] = _taken(
                values[node.arg.name].expand(rows, cols), values[node.index.name]
            )
        elif isinstance(node, Reduce):
            whole = values[node.arg.name]
            if node.arg.kind == Kind.FULL:
                whole = whole.expand(rows, cols)
            if node.sample:
                whole = whole[:sample]
            dims = {Kind.ROW: (-1,), Kind.COL: (0,), Kind.SCALAR: tuple(range(whole.dim()))}[
                node.kind
            ]
            reduce = torch.sum if node.op == "sum" else torch.amax
            values[node.name] = reduce(whole, dim=dims, keepdim=node.kind == Kind.ROW)
    found = {}
    for name, out in program.outputs.items():
        own = inputs[out.like.name].shape
        shapes = {"like": own, "half": own, "scalar": ()}
        value = values[out.value.name]
        found[name] = value.reshape(()) if out.outline == "scalar" else value
        found[name] = found[name].expand(shapes.get(out.outline, (rows, 1)))
    return found


def _taken(x: Tensor, index: Tensor) -> Tensor:
    """Return each row's element [rows, 1] in the column `index` [rows, 1], the first where it is none."""
    column = index.long()
    known = (column >= 0) & (column < x.shape[-1])
    return x.gather(-1, torch.where(known, column, 0))
