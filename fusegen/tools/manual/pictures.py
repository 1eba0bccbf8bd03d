"""Pictures of ops, as SVG: a function and its derivative, or a row and its result.

The same op gives the same bytes with the same matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fusegen.ops import Op
from fusegen.program import Input, Kind, Program, Reduce, Take
from fusegen.tools.check.reference_program import run_program
from fusegen.tools.figure import INPUT, SLOPE, VALUE, draw_curves, figure, points_of_curves
from fusegen.tools.manual.alone import backward_of, program_of

__all__ = ["caption", "draw"]

#: Values to draw with: of attributes without a default, and of operands for which 0.75 shows little.
_EXAMPLES: dict[str, dict[str, float]] = {
    "clamp": {"min": -1.0, "max": 1.5},
    "hardtanh": {"min_val": -1.0, "max_val": 1.0},
    "pow": {"exponent": 3.0},
    "prelu": {"weight": 0.25},
    "rms_norm": {"eps": 1e-5},
    "threshold": {"threshold": 0.5, "value": -1.0},
    "where": {"condition": 1.0},
}
_OTHER = 0.75
_COLUMNS, _COLUMN = 12, 8


def draw(op: Op) -> str | None:
    """Return an op's picture, or None if it has none; `caption` says what it shows, or why there is none.

    Raises:
        UserError: if matplotlib is missing.
    """
    if _why_not(op):
        return None
    program = program_of(op, _given(op))
    drawn = _draw_row if _of_rows(program) else _draw_curve
    return figure(lambda axes: drawn(axes, op, program))


def caption(op: Op) -> str:
    """Return what an op's picture shows, or why it has no picture."""
    if reason := _why_not(op):
        return f"No picture: {reason}."
    program = program_of(op, _given(op))
    given = _given(op) | ({} if _of_rows(program) else _numbers(op, program))
    shown = ", ".join(f"{name} = {value}" for name, value in given.items())
    where = f" ({shown})" if shown else ""
    if not _of_rows(program):
        return f"The value and its derivative, against {_varied(op)}{where}."
    if Kind.COL in program.outputs["y"].kind:
        return f"A row x, the result, and the derivative of its column {_COLUMN} by each column of x{where}."
    return f"A row x, its result, and the derivative of the result by each column of x{where}."


def _why_not(op: Op) -> str:
    if op.source:
        return "torch computes the product" + (", and the kernel adds the bias" * bool(op.operands))
    if op.eval_mode == "identity":
        return "the dropped values are random"
    if op.paired:
        return "each half of the result takes elements of the other half of x"
    return "it only scales and shifts each column" if op.trained else ""


def _given(op: Op) -> dict[str, Any]:
    """Return the attributes to draw an op with. A loss is drawn per element or row, without its mean."""
    each = {"reduction": "none"} if "reduction" in op.attributes else {}
    return {**_EXAMPLES.get(op.name, {}), **each}


def _varied(op: Op) -> str:
    """Return the operand on the horizontal axis: the gate if there is one, else x."""
    return "gate" if "gate" in op.operands else "x"


def _numbers(op: Op, program: Program) -> dict[str, float]:
    """Return the values of the operands that are not on the horizontal axis."""
    fixed = [i.name for i in program.inputs if i.source == "tensor" and i.name != _varied(op)]
    return dict.fromkeys(fixed, 1.0 if _varied(op) == "gate" else _OTHER)


def _of_rows(program: Program) -> bool:
    """Whether an element's value depends on other elements of its row, or on its column number."""
    return any(
        isinstance(node, (Reduce, Take)) or (isinstance(node, Input) and node.source == "index")
        for node in program.nodes()
    )


def _gradient(program: Program, inputs: Mapping[str, Tensor], chosen: Tensor, name: str) -> Tensor:
    """Return the gradient of an input for a given gradient of the result."""
    found = run_program(backward_of(program), {**inputs, "grad_y": chosen})
    return found.get(f"grad_{name}", torch.zeros_like(inputs[name])).clone()


def _draw_curve(axes: Any, op: Op, program: Program) -> None:
    points = points_of_curves()[:, None]
    shapes = {Kind.FULL: points.shape, Kind.COL: (1,), Kind.SCALAR: (1,)}
    numbers = _numbers(op, program)
    inputs = {
        i.name: torch.full(shapes[i.kind], numbers[i.name], dtype=torch.float64)
        for i in program.inputs
        if i.name in numbers
    }
    inputs[_varied(op)] = points
    value = run_program(program, inputs)["y"]
    slope = _gradient(program, inputs, torch.ones_like(points), _varied(op))
    draw_curves(axes, points[:, 0], {op.name: value[:, 0], "derivative": slope[:, 0]}, _varied(op))


def _draw_row(axes: Any, op: Op, program: Program) -> None:
    columns = torch.arange(_COLUMNS, dtype=torch.float64)
    x = (1.4 * torch.sin(0.9 * columns) + 0.8 * torch.cos(2.3 * columns) + 0.3)[None]
    inputs = {"x": x}
    for i in program.inputs:
        if i.integer:
            inputs[i.name] = torch.full((1, 1), _COLUMN)
        elif i.source == "tensor" and i.name != "x":
            inputs[i.name] = torch.full((_COLUMNS,), 1.0 if i.name == "weight" else 0.0).double()
    value = run_program(program, inputs)["y"]
    chosen = torch.zeros_like(value)
    chosen[0, _COLUMN if value.shape == x.shape else 0] = 1
    slope = _gradient(program, inputs, chosen, "x")
    axes.axhline(0, color="#b8bcc4", linewidth=0.6)
    _stairs(axes, x, label="x", color=INPUT, linewidth=1)
    if value.shape == x.shape:
        _stairs(axes, value, label=op.name, color=VALUE, linewidth=1.6)
    else:
        axes.axhline(round(float(value[0, 0]), 4), color=VALUE, linewidth=1.6, label=op.name)
    _stairs(axes, slope, label="derivative", color=SLOPE, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.set_xticks(range(0, _COLUMNS, 4))
    axes.margins(y=0.1)
    axes.set_xlabel("column")


def _stairs(axes: Any, row: Tensor, **look: Any) -> None:
    edges = [column - 0.5 for column in range(_COLUMNS + 1)]
    heights = row[0].masked_fill(row[0].isinf(), float("nan"))
    axes.stairs([round(v, 4) for v in heights.tolist()], edges, baseline=None, **look)
