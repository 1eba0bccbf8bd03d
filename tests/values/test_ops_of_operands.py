"""An op of an operand alone: the sum over rows is taken of what reaches the op, and its slope follows."""

from __future__ import annotations

from pathlib import Path

import torch
from conftest import built_alone


def test_an_op_of_a_column(tmp_path: Path) -> None:
    text = 'order: 2\ndtypes: [float64]\noperands: {b: col}\nchain: [expr: "x * mish(b)"]\n'
    apply = built_alone(tmp_path, "mish_of_a_column", text, [torch.float64]).apply
    x = torch.randn(7, 33, dtype=torch.float64, requires_grad=True)
    b = torch.randn(33, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(7, 33, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(33, dtype=torch.float64)
    found = []
    for value in (apply(x, b), x * torch.nn.functional.mish(b)):
        of_x, of_b = torch.autograd.grad(value, (x, b), cotangent, create_graph=True)
        found.append((of_x, of_b, *torch.autograd.grad(of_b, (x, b, cotangent), direction)))
    torch.testing.assert_close(found[0], found[1])
